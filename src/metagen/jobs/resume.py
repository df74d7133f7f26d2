"""Go on with a training that was interrupted: ``metagen train --resume RUN``."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from metagen.config.schema import check
from metagen.errors import MetagenError, UsageError
from metagen.files import write_text
from metagen.reading import check_writable, read_json
from metagen.runs.reopen import differences, recompose

ATTEMPT = ".hydra/resumed"
"""Where Hydra writes what it composed for a resumed run: what the run began with stays as it is."""
FREE = ("trainer", "vectorize", "chunk", "workers", "checkpoint", "checkpoint_every", "max_skips")
"""Keys that may change on the way."""
FREE_LEAVES = ("data.root", "data.cache", "test_data.root", "test_data.cache", "judge.cache")


class Resumption:
    """A run that was interrupted, to go on in its own folder with its own configuration.

    Args:
        run: its folder.
        overrides: of ``trainer`` and of what else does not change the recipe.

    Attributes:
        done: whether the run has come to its end; then there is nothing to do.
        argv: what Hydra is to compose; what runs is what :meth:`prepare` returns.

    Raises:
        MetagenError: no run's folder, or overrides that would make another run of it.
    """

    def __init__(self, run: Path, overrides: Sequence[str] = ()) -> None:
        if (run / "jobs.json").is_file() or (run / "multirun.yaml").is_file():
            raise MetagenError(f"{run} is a sweep: metagen train -m --resume {run}")
        for word in overrides:
            if not _free(word.lstrip("+~").partition("=")[0].partition("@")[0]):
                raise UsageError(
                    f"a resumed run keeps its recipe: leave out '{word}' (trainer.* is possible); another "
                    f"recipe can start from its weights: checkpoint={run}/checkpoints/last.ckpt"
                )
        check_writable(run)
        self.run, self.given = run, list(overrides)
        self.parts = recompose(run, self.given)
        self.done = _finished(run)
        if self.given:
            check(_resolved(self.parts.config))
            self._check_recipe()
        place = QuotedString(str(run), Quote.single).with_quotes()
        self.argv = [*self.parts.known, f"hydra.run.dir={place}", f"hydra.output_subdir={ATTEMPT}"]

    def prepare(self, composed: DictConfig) -> DictConfig:
        """Return the configuration to run in the place of ``composed``."""
        config = OmegaConf.create(self.parts.config)
        OmegaConf.set_struct(config, True)
        hydra: Any = HydraConfig.get()
        with read_write(hydra), open_dict(hydra):
            hydra.overrides.task = self.parts.overrides
        if self.given:
            self._rewrite(config)
        return config

    def _check_recipe(self) -> None:
        """Refuse what follows from an override of the trainer, such as another learning-rate schedule."""
        before, after = (_resolved(parts.config) for parts in (recompose(self.run), self.parts))
        for key, (old, new) in differences(before, after).items():
            if not _free(key):
                raise MetagenError(
                    f"{' '.join(self.given)} changes {key} from {old} to {new}, but a resumed run keeps its "
                    f"recipe; a new one can start from it: checkpoint={self.run}/checkpoints/last.ckpt"
                )

    def _rewrite(self, config: DictConfig) -> None:
        """Let the folder tell what the run has become; what it began with is kept in ``.hydra/original``."""
        saved = self.run / ".hydra"
        (saved / "original").mkdir(exist_ok=True)
        for name in ("config.yaml", "overrides.yaml"):
            if not (saved / "original" / name).exists():
                shutil.copy2(saved / name, saved / "original" / name)
        write_text(saved / "config.yaml", OmegaConf.to_yaml(config))
        write_text(saved / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(self.parts.overrides)))


def _resolved(config: dict[str, Any]) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def resumes() -> bool:
    """Return whether the job that Hydra runs is a resumed one."""
    return HydraConfig.get().output_subdir == ATTEMPT


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let no other process train in ``folder``; the hold ends with this process, however it ends.

    Raises:
        MetagenError: another one does.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise MetagenError(f"another process is training in {folder}: wait for it, or end it") from error
    finally:
        os.close(descriptor)


def _free(key: str) -> bool:
    return key.partition(".")[0] in FREE or key in FREE_LEAVES


def _finished(run: Path) -> bool:
    try:
        return "metrics" in read_json(run / "metrics.json")
    except (OSError, ValueError, TypeError, MetagenError):
        return False
