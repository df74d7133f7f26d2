"""Going on with a training that was interrupted: ``metagen train --resume RUN``."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from metagen.config.compose import Config, resolved
from metagen.config.keys import may_change
from metagen.config.overrides import group_of
from metagen.config.schema import check
from metagen.errors import MetagenError, UsageError
from metagen.reading import check_writable, read_json
from metagen.runs.places import located
from metagen.runs.records import WEIGHTS
from metagen.runs.reopen import Reopened, changed_keys, reopen
from metagen.runs.run import Run


def resume(run: Path, overrides: Sequence[str] = ()) -> Run | None:
    """Return an interrupted run, to go on in its own folder with its own configuration; nothing is written.

    A run that has come to its end goes on where it is lengthened, as by ``trainer.max_steps=N``, or where
    something else than its steps ended it.

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
    if located(run) != run or ((run / WEIGHTS).is_file() and not (run / "checkpoints").is_dir()):
        raise MetagenError(
            f"{run} is a trained model without the state of its training, with which none can go on: "
            f"start a new one from its weights by checkpoint={run}"
        )
    opened = reopen(run, overrides)
    check_writable(run)
    if overrides:
        check(resolved(opened.config))
        _check_recipe(run, overrides, opened)
    steps = _steps_done(run)
    if steps is not None and _all_done(run, steps, resolved(opened.config), overrides):
        return None
    return opened.run(kind="resumed", folder=run)


def _check_recipe(run: Path, overrides: Sequence[str], opened: Reopened) -> None:
    """Refuse what follows from an override of the trainer, such as another learning-rate schedule."""
    before, after = (resolved(one.config) for one in (reopen(run), opened))
    for key, (old, new) in changed_keys(before, after).items():
        if not may_change(key):
            raise MetagenError(
                f"{' '.join(overrides)} changes {key} from {old} to {new}, but a resumed run keeps its "
                f"recipe; a new one can start from it: checkpoint={run}/checkpoints/last.ckpt"
            )


def _steps_done(run: Path) -> int | None:
    """Return the steps of a training whose record is there; None where there is none."""
    record = _record(run)
    return None if "metrics" not in record else int(record.get("training", {}).get("steps") or 0)


def _record(run: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, TypeError, MetagenError):
        record = read_json(run / "metrics.json")
        told = record.get("training", {}) if isinstance(record, dict) else None
        if isinstance(told, dict) and isinstance(record.get("metrics"), dict):
            return record if isinstance(told.get("steps"), int | None) else {}
    return {}


def _all_done(run: Path, steps: int, config: Config, overrides: Sequence[str]) -> bool:
    """Return whether a run that has a record is not to go on.

    Raises:
        MetagenError: it is to be shorter than it is, or would end at once where it ended before.
    """
    training, trainer = _record(run).get("training", {}), config["trainer"]
    wanted, given = int(trainer["max_steps"]), {group_of(word) for word in overrides}
    if steps and wanted < steps:
        raise MetagenError(f"trainer.max_steps={wanted}: {run} has {steps} steps already; name more")
    if not steps or steps == wanted or training.get("ended") == "early_stopping":
        return True
    if steps == training.get("planned") and not given & {"trainer.max_steps", "trainer.max_epochs"}:
        return True
    if trainer.get("max_time") is not None and "trainer.max_time" not in given:
        raise MetagenError(
            f"{run} ended after {steps} of {wanted} steps by trainer.max_time, which counts the time before, "
            "too: give it more, as trainer.max_time=DD:HH:MM:SS, or null for any"
        )
    return False
