"""What one sees of a training while it runs: a bar that knows its end, and the time that is left."""

import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two words to others: a look at the loss waits for a GPU."""


class StepsBar(TQDMProgressBar):
    """A progress bar over the batches up to ``max_steps``: an epoch of episodes has no end to count to."""

    def __init__(self) -> None:
        # A log file has no use for a line at every step.
        super().__init__(5 if sys.stderr.isatty() else 100)

    @property
    def total_train_batches(self) -> int | float:
        """Return the batches of an epoch, or of the training where that ends before."""
        of_an_epoch = self.trainer.num_training_batches
        steps = self.trainer.max_steps * self.trainer.accumulate_grad_batches
        return min(of_an_epoch, steps) if self.trainer.current_epoch == 0 else of_an_epoch


class TimeLeft(Callback):
    """Tells how far the training is and how long it will take: in the log at every validation.

    Args:
        steps: after which it ends.
        tell: takes what others are to see, ``doing, step, steps, loss, left``, once in :data:`EVERY` seconds.
    """

    def __init__(self, steps: int, tell: Callable[..., Any] | None = None) -> None:
        self.steps, self.tell = steps, tell
        self._start: tuple[float, int] | None = None
        self._told = -math.inf

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Start the clock; what comes before the first batch tells nothing."""
        self._start = self._start or (time.perf_counter(), trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Tell others of the step."""
        now = time.monotonic()
        if self.tell is None or now - self._told < EVERY or not trainer.is_global_zero:
            return
        self._told = now
        loss = trainer.callback_metrics.get("train/loss")
        self.tell(
            doing="trains",
            step=trainer.global_step,
            steps=self.steps,
            loss=None if loss is None else float(loss),
            left=self._left(trainer),
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log a line."""
        if trainer.sanity_checking or self._start is None or not trainer.is_global_zero:
            return
        loss = trainer.callback_metrics.get("val/loss")
        shown = "" if loss is None else f", val/loss {float(loss):.4g}"
        left = duration(self._left(trainer))
        log.info("step %d of %d%s, %s left", trainer.global_step, self.steps, shown, left)

    def _left(self, trainer: L.Trainer) -> float:
        """Return the seconds that the rest will take, were all steps as long as those so far."""
        begun, first = self._start or (time.perf_counter(), trainer.global_step)
        each = (time.perf_counter() - begun) / max(trainer.global_step - first, 1)
        return each * max(self.steps - trainer.global_step, 0)


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> duration(8), duration(75), duration(8000)
    ('8 s', '1 min 15 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
