"""Checkpoints: when they are written, whole or not at all, and which of them to go on from."""

import io
import logging
import math
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from metagen.errors import MetagenError
from metagen.files import write_bytes
from metagen.reading import opened
from metagen.training import signals
from metagen.training.saved_state import ShapeError, check_shape, check_state
from metagen.training.weights import unpacked

log = logging.getLogger(__name__)

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"


class AtomicCheckpoints(TorchCheckpointIO):
    """Write a checkpoint beside its target and move it there; what was the last one becomes the previous one.

    A full disk leaves the one before, a power cut at least the previous one.
    """

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            MetagenError: the file cannot be written; what was at ``path`` still is.
        """
        # torch.save to a file hides a full disk in a RuntimeError; writing bytes names it.
        buffer, target = io.BytesIO(), Path(path)
        torch.save(dict(checkpoint), buffer)
        try:
            write_bytes(target, buffer.getbuffer(), PREVIOUS if target.name == LAST else None)
        except MetagenError as error:
            run = target.parent.parent
            raise MetagenError(f"{error}; make room, then metagen train --resume {run} goes on") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return what the checkpoint at ``path`` holds; no code in it is run, whatever is asked for."""
        return read_checkpoint(path)


class Keeper(Checkpoint):
    """Writes ``last.ckpt`` every so many seconds and around every validation, and ``best.ckpt``.

    Lightning can go on exactly from the end of a step without validation, and from the end of a validation:
    nothing is written in between. So the step that ends with a validation is preceded by a checkpoint,
    from which a run goes on that was told to stop during the validation.

    Args:
        folder: of the checkpoints.
        every: seconds between two checkpoints at most, 0 for one after every step.

    Raises:
        MetagenError: ``every`` is negative.

    Attributes:
        best_model_score: the lowest validation loss so far, None before the first one.
        resumed: how often the training was taken up again.
    """

    def __init__(self, folder: Path, every: float) -> None:
        if every < 0:
            raise MetagenError(f"checkpoint_every={every}: expected a number of seconds, 0 or more")
        self.folder, self.every = folder, every
        self.best_model_score: float | None = None
        self.resumed = 0
        self.saved_step: int | None = None
        self._before = self._saved_at = 0.0
        self._start: float | None = None

    @property
    def seconds(self) -> float:
        """Return the time of training, that of earlier attempts up to their checkpoints included."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to know."""
        return {
            "best_model_score": self.best_model_score,
            "seconds": self.seconds,
            "resumed": self.resumed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; without its checkpoint the best score is worth nothing."""
        self.best_model_score = state_dict["best_model_score"]
        self._before, self.resumed = state_dict["seconds"], state_dict["resumed"] + 1
        if self.best_model_score is not None and not (self.folder / BEST).is_file():
            log.warning("%s is gone: the best state from here on takes its place", self.folder / BEST)
            self.best_model_score = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clocks."""
        self._start, self._saved_at = time.perf_counter(), time.monotonic()
        signals.install()  # Lightning has just taken them

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._before, self._start = self.seconds, None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the last checkpoint where it is time, or where a signal says so."""
        if _validates(trainer, 0) or trainer.fit_loop.epoch_loop._should_accumulate():
            return  # gradients of half a step are in no checkpoint
        over = trainer.should_stop or trainer.global_step == trainer.max_steps
        late = time.monotonic() - self._saved_at >= self.every
        if over or late or _validates(trainer, trainer.accumulate_grad_batches) or signals.noted():
            self.keep(trainer, LAST)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop where a signal says so: the step before has been saved and logged by now."""
        if self.saved_step == trainer.global_step:
            self._stop(trainer)

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop where a signal says so: the checkpoint before the step is there."""
        self._stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the best and the last checkpoint."""
        if trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics["val/loss"])
        if _better(score, self.best_model_score):
            self.best_model_score = score
            self.keep(trainer, BEST)
        self.keep(trainer, LAST)

    def keep(self, trainer: L.Trainer, name: str) -> None:
        """Write the checkpoint ``name``, on the first rank."""
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()  # or a kill leaves a gap in the curves
            trainer.save_checkpoint(self.folder / name, weights_only=False)
            if name == LAST:
                self._saved_at, self.saved_step = time.monotonic(), trainer.global_step

    def _stop(self, trainer: L.Trainer) -> None:
        # The others end with the first rank: of two that stop by themselves, one would wait for the other.
        if trainer.is_global_zero:
            signals.check()


def _better(score: float, best: float | None) -> bool:
    """Return whether a validation loss is lower than the lowest one; any number is better than NaN."""
    return best is None or score < best or (math.isnan(best) and not math.isnan(score))


def _validates(trainer: L.Trainer, ahead: int) -> bool:
    """Return whether a validation follows the step that ends now, or the one ``ahead`` of it."""
    interval = trainer.val_check_batch
    if not trainer.enable_validation or not trainer.num_val_batches or interval is None:
        return False
    loop, every = trainer.fit_loop.epoch_loop, trainer.check_val_every_n_epoch
    if every is None:
        return (loop.total_batch_idx + 1 + ahead) % interval == 0
    number = loop.batch_idx + 1 + ahead
    due = number % interval == 0 or number == trainer.num_training_batches
    return (trainer.current_epoch + 1) % every == 0 and due


class DamagedError(MetagenError):
    """A file that is no whole checkpoint.

    Attributes:
        why: in a few words.
    """

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint, or the weights of an exported run, hold; no code in them is run.

    Raises:
        MetagenError: the file is missing or cannot be read.
        DamagedError: it is no checkpoint, or not whole.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return unpacked(Path(path))
        with opened(path) as file:
            _check_archive(file)
            file.seek(0)
            saved = torch.load(file, map_location="cpu", weights_only=True)
        check_shape(saved, SHAPE)
        if saved["global_step"] < 0:
            raise ShapeError(f"global_step is {saved['global_step']}")
        return saved
    except FileNotFoundError as error:
        raise MetagenError(
            f"no checkpoint at {path}: train first, or name a run folder that has one"
        ) from error
    except OSError as error:
        raise MetagenError(f"{path} cannot be read ({error.strerror or error}): check the file") from error
    except Exception as error:
        why = type(error).__name__ + (f": {error}" if isinstance(error, ShapeError) else "")
        raise DamagedError(
            f"{path} is no readable checkpoint ({why}): {_way_out(Path(path))}", why
        ) from error


def _way_out(path: Path) -> str:
    """Say what to do about a damaged checkpoint: the last one may be whole."""
    if path.suffix == ".safetensors":
        return "fetch it again, or export the run anew"
    run, last = path.parent.parent, path.with_name(LAST)
    if path.name != BEST or not last.is_file():
        return "train again"
    if (run / "metrics.json").is_file():
        return f"metagen evaluate {run} checkpoint={last} takes the last one"
    return f"metagen train --resume {run} goes on from {LAST}"


SHAPE: dict[str, Any] = {"state_dict": {}, "global_step": int}
"""What of a checkpoint its weights need: the type of every key, of a dict its keys'."""


def _resumable(path: Path, module: L.LightningModule | None) -> int:
    """Return the steps of a checkpoint from which training can go on.

    Raises:
        DamagedError: it is not whole, or of another optimizer than that of ``module``.
    """
    saved = read_checkpoint(path)
    try:
        check_state(saved, module)
    except ShapeError as error:
        raise DamagedError(f"{path} is no whole checkpoint ({error}): train again", str(error)) from error
    return int(saved["global_step"])


def _check_archive(file: IO[bytes]) -> None:
    """Refuse a damaged archive, whose numbers torch would take as they are, and one that hides its size."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        if sum(part.file_size for part in archive.infolist()) > size:
            raise zipfile.BadZipFile("its parts are larger than the whole")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(damaged)


def newest(folder: Path, module: L.LightningModule | None = None) -> tuple[Path, int] | tuple[None, None]:
    """Return the checkpoint in ``folder`` with the most steps and their number, or Nones where there is none.

    One that cannot be read, or whose optimizer is not that of ``module``, is put aside, as
    ``NAME.unreadable``, with a warning.
    """
    found: list[tuple[int, Path]] = []
    for path in (folder / name for name in (LAST, PREVIOUS, BEST)):
        if not path.is_file():
            continue
        try:
            found.append((_resumable(path, module), path))
        except DamagedError as error:
            aside = path.with_name(f"{path.name}.unreadable")
            log.warning(
                "%s is damaged and put aside as %s (%s): the one before it is used",
                path,
                aside.name,
                error.why,
            )
            path.replace(aside)
    if not found:
        return None, None
    # Of two with as many steps the first one is the last one.
    steps, path = max(found, key=lambda one: one[0])
    return path, steps
