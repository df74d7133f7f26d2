"""A run: its folder, its configuration, its choices, and how it came to be."""

import fcntl
import json
import logging
import logging.handlers
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from metagen.config.around_a_run import check_around
from metagen.config.compose import Composed, Config, compose, resolved, with_output_dir
from metagen.config.foreign import check_command_line
from metagen.config.overrides import of_hydra
from metagen.errors import MetagenError, UsageError
from metagen.files import is_text, write_text
from metagen.reading import read_yaml
from metagen.runs.footprint import Footprint, remove

log = logging.getLogger(__name__)

Kind = Literal["new", "resumed", "evaluation"]
SAVED = ("config.yaml", "hydra.yaml", "overrides.yaml")
"""What ``.hydra`` holds; the last one is written last: where it is, the others are."""
SIGNS = (".hydra/config.yaml", ".hydra/overrides.yaml", "metrics.json")
"""Files by which a folder is known as that of a run."""
SWEEP = ("jobs.json", "multirun.yaml")
"""Files by which it is known as that of a sweep."""
OWN = (
    ".hydra", "checkpoints", "metrics.json", "episodes.npz", "samples.npz", "samples.png", "predictions.png",
    "adaptation.png",
    "reproduction.json", "split.json", "progress.json", "hparams.yaml", "events.out.tfevents.*",
    "metagen.log", "tensorboard", "csv", "wandb",
)  # fmt: skip
"""What a run writes into its folder; nothing else is ever removed."""
WORTH = ("checkpoints/*.ckpt", "metrics.json")
"""Where one of these is, the folder stays, however the run ended."""


@dataclass(frozen=True)
class Run:
    """One run, which a job such as ``train`` takes.

    folder:    where it writes, absolute.
    config:    plain values, interpolations resolved: what is built.
    source:    the same with interpolations kept: what is saved.
    overrides: by which it was composed.
    choices:   group -> choice.
    kind:      ``"new"``; ``"resumed"``, in its own folder; or the ``"evaluation"`` of another run's weights.
    force:     whether what an earlier run left in the folder is replaced.
    whole:     what Hydra was told, among it how to log.
    log_by_hydra: whether logging is set up so; else a file in the folder is added to what there is.
    """

    folder: Path
    config: Config
    source: Config
    overrides: Sequence[str]
    choices: Mapping[str, str]
    kind: Kind = "new"
    force: bool = False
    whole: DictConfig | None = field(default=None, repr=False, compare=False)
    log_by_hydra: bool = True

    def to_json(self) -> str:
        """Return the run for another process, which joins it."""
        kept = ("config", "source", "overrides", "choices", "kind")
        return json.dumps({"folder": str(self.folder), **{name: getattr(self, name) for name in kept}})

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """Return the run that another process described."""
        found = json.loads(text)
        return cls(**{**found, "folder": Path(found["folder"])})

    @property
    def places(self) -> list[str]:
        """Where Hydra looked for the files of the configuration."""
        sources = self.whole.hydra.runtime.config_sources if self.whole is not None else ()
        return [str(source.path) for source in sources if source.schema == "file"]

    def check_folder(self) -> None:
        """Refuse a folder that holds a run or a sweep already, unless it is this run's own.

        Raises:
            MetagenError: it does, or it is no folder.
        """
        if not is_text(str(self.folder)):
            raise UsageError(f"{self.folder}: a name that is no text in UTF-8; name another folder")
        if self.folder.exists() and not self.folder.is_dir():
            raise MetagenError(f"{self.folder} is a file: name a new folder by hydra.run.dir")
        sign = self._sign()
        if self.kind != "resumed" and sign in SWEEP:
            raise MetagenError(f"{self.folder} holds a sweep ({sign}): name a new folder by hydra.run.dir")
        if self.kind != "resumed" and not self.force and sign is not None:
            raise MetagenError(
                f"{self.folder} holds a run already ({sign}): name a new folder by hydra.run.dir, go on with "
                f"it by metagen train --resume {self.folder}, or replace it by --force"
            )

    def _sign(self) -> str | None:
        """Return the file by which the folder is that of a run or of a sweep, if it is."""
        return next((name for name in (*SWEEP, *SIGNS) if (self.folder / name).exists()), None)

    @contextmanager
    def opened(self, held_back: "HeldBack | None" = None, alone: bool = True) -> Iterator[None]:
        """Make the folder, write down what the run is, and log into it; a failed start leaves nothing.

        Args:
            held_back: messages from before there was a folder.
            alone: whether this process is the only one that works in the folder.

        Raises:
            MetagenError: another process trains there, or the folder cannot be made.
        """
        footprint = Footprint(self.folder, OWN)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder) if alone else nullcontext():
                self.check_folder()
                if self.force and self._sign():
                    remove(self.folder, OWN)
                with self._logging():
                    self._write()
                    if held_back is not None:
                        held_back.release()
                    yield
        except BaseException:
            if self.kind != "resumed" and not any(any(self.folder.glob(worth)) for worth in WORTH):
                footprint.undo()
            raise

    def _write(self) -> None:
        """Write ``.hydra``; of a resumed run only what it has become, and what it began with is kept."""
        place = self.folder / ".hydra"
        if self.kind == "resumed":
            if _read(place / "config.yaml") == self.source and _read(place / "overrides.yaml") == [
                *self.overrides
            ]:
                return
            (place / "original").mkdir(parents=True, exist_ok=True)
            for name in SAVED:
                if (place / name).exists() and not (place / "original" / name).exists():
                    shutil.copy2(place / name, place / "original" / name)
        write_text(place / "hydra.yaml", OmegaConf.to_yaml(self._described()))
        write_text(place / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.source)))
        write_text(place / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(self.overrides))))

    def _described(self) -> Any:
        """Return what ``hydra.yaml`` tells: Hydra's node, with the choices and overrides of this run."""
        node = OmegaConf.create({"hydra": {"runtime": {}, "overrides": {}}})
        if self.whole is not None:
            node = with_output_dir(OmegaConf.masked_copy(self.whole, "hydra"), self.folder)
        with read_write(node), open_dict(node):
            OmegaConf.update(node, "hydra.runtime.choices", dict(self.choices), merge=True, force_add=True)
            OmegaConf.update(node, "hydra.overrides.task", list(self.overrides), merge=False, force_add=True)
        return node

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Log into the folder, as Hydra is told to or to ``metagen.log``; afterwards all is as it was."""
        root = logging.getLogger()
        before, level = list(root.handlers), root.level
        try:
            if self.whole is None or not self.log_by_hydra:
                file = logging.FileHandler(self.folder / "metagen.log", encoding="utf-8")
                file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
                root.addHandler(file)
                root.setLevel(min(level, logging.INFO))
            else:
                whole = with_output_dir(self.whole, self.folder)
                configure_log(_complete(whole.hydra.job_logging), whole.hydra.verbose)  # type: ignore[arg-type]
            yield
        finally:
            for handler in [one for one in root.handlers if one not in before]:
                root.removeHandler(handler)
                handler.close()
            for handler in [one for one in before if one not in root.handlers]:
                root.addHandler(handler)
            root.setLevel(level)


def _complete(logging_config: DictConfig | None) -> DictConfig | None:
    """Return how to log without handlers that ``hydra/job_logging=none`` and such leave incomplete."""
    if logging_config is None:
        return None
    node = logging_config.copy()
    with read_write(node), open_dict(node):
        handlers = {name: one for name, one in (node.get("handlers") or {}).items() if one.get("class")}
        node.handlers = handlers
        if node.get("root") is not None:
            node.root.handlers = [name for name in node.root.get("handlers") or [] if name in handlers]
    return node


class HeldBack(logging.handlers.MemoryHandler):
    """Log messages from before a run has its folder: shown once it has, dropped where it is refused."""

    def __init__(self) -> None:
        super().__init__(capacity=10**6, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self.setLevel(logging.INFO)

    def __enter__(self) -> "HeldBack":
        """Begin to collect."""
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self)
        root.setLevel(min(root.level, logging.INFO))
        return self

    def __exit__(self, *error: object) -> None:
        """Collect no more."""
        logging.getLogger().removeHandler(self)
        logging.getLogger().setLevel(self._level)
        self.buffer.clear()

    def release(self) -> None:
        """Hand over what was collected to the handlers that there are now."""
        records, self.buffer = list(self.buffer), []
        logging.getLogger().removeHandler(self)
        for record in records:
            logging.getLogger(record.name).handle(record)


def new_run(
    overrides: Sequence[str],
    config_dir: str | Path | None = None,
    config_name: str = "config",
    force: bool = False,
) -> Run:
    """Return a new run of what the overrides compose; nothing is written.

    Raises:
        MetagenError: its folder holds a run, or an override asks of Hydra what a run cannot do.
        HydraException, OmegaConfBaseException: the overrides cannot be read or composed.
    """
    named = ["--config-dir", str(config_dir)] if config_dir is not None else []
    check_command_line([*named, "--config-name", config_name, *overrides])
    return run_of(compose(overrides, config_dir, config_name), list(overrides), force=force)


def run_of(composed: Composed, overrides: Sequence[str], kind: Kind = "new", force: bool = False) -> Run:
    """Return the run of a composed configuration, its folder checked.

    Raises:
        MetagenError: see :func:`new_run`.
    """
    check_around(composed.whole)
    shown = [text for text in overrides if not of_hydra(text)]
    config = resolved(composed.config, composed.whole)
    whole = composed.whole
    run = Run(composed.folder(), config, composed.config, shown, composed.choices, kind, force, whole)
    run.check_folder()
    return run


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let no other process train in ``folder``; the lock ends with this process, however it ends.

    Raises:
        MetagenError: another one does.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MetagenError(f"another process is training in {folder}: wait for it, or end it") from error
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> Any:
    with suppress(Exception):
        return read_yaml(path)
    return None
