"""What one sees of a training while it runs: a bar that knows its end, and the time that is left."""

import logging
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

log = logging.getLogger(__name__)


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
    """Logs at every validation how far the training is and how long it will take.

    Args:
        steps: after which it ends.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._start: tuple[float, int] | None = None

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Start the clock; what comes before the first batch tells nothing."""
        self._start = self._start or (time.perf_counter(), trainer.global_step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log a line."""
        if trainer.sanity_checking or self._start is None or not trainer.is_global_zero:
            return
        begun, first = self._start
        done = trainer.global_step - first
        left = (time.perf_counter() - begun) / max(done, 1) * max(self.steps - trainer.global_step, 0)
        loss = trainer.callback_metrics.get("val/loss")
        shown = "" if loss is None else f", val/loss {float(loss):.4g}"
        log.info("step %d of %d%s, %s left", trainer.global_step, self.steps, shown, duration(left))


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
