"""Going on with a training that was interrupted: ``metagen train --resume RUN``."""

from collections.abc import Sequence
from pathlib import Path

from metagen.config.compose import resolved
from metagen.config.keys import may_change
from metagen.config.overrides import group_of
from metagen.config.schema import check
from metagen.errors import MetagenError, UsageError
from metagen.reading import check_writable, read_json
from metagen.runs.reopen import Reopened, changed_keys, reopen
from metagen.runs.run import Run


def resume(run: Path, overrides: Sequence[str] = ()) -> Run | None:
    """Return an interrupted run, to go on in its own folder with its own configuration; nothing is written.

    Args:
        run: its folder.
        overrides: of ``trainer`` and of what else does not change the recipe.

    Returns:
        None where the run has come to its end.

    Raises:
        MetagenError: no run's folder, or overrides that would make another run of it.
    """
    if (run / "jobs.json").is_file() or (run / "multirun.yaml").is_file():
        raise MetagenError(f"{run} is a sweep: metagen train -m --resume {run}")
    for word in overrides:
        if not may_change(group_of(word)):
            raise UsageError(
                f"a resumed run keeps its recipe: leave out '{word}' (trainer.* is possible); another "
                f"recipe can start from its weights: checkpoint={run}/checkpoints/last.ckpt"
            )
    check_writable(run)
    opened = reopen(run, overrides)
    if overrides:
        check(resolved(opened.config))
        _check_recipe(run, overrides, opened)
    return None if _finished(run) else opened.run(kind="resumed", folder=run)


def _check_recipe(run: Path, overrides: Sequence[str], opened: Reopened) -> None:
    """Refuse what follows from an override of the trainer, such as another learning-rate schedule."""
    before, after = (resolved(one.config) for one in (reopen(run), opened))
    for key, (old, new) in changed_keys(before, after).items():
        if not may_change(key):
            raise MetagenError(
                f"{' '.join(overrides)} changes {key} from {old} to {new}, but a resumed run keeps its "
                f"recipe; a new one can start from it: checkpoint={run}/checkpoints/last.ckpt"
            )


def _finished(run: Path) -> bool:
    try:
        return "metrics" in read_json(run / "metrics.json")
    except (OSError, ValueError, TypeError, MetagenError):
        return False
