"""Schedules that go by the validation loss, as ``ReduceLROnPlateau``."""

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import ReduceLROnPlateau

NEVER = sys.maxsize
"""As a frequency: Lightning leaves the schedule alone."""


class StepPlateau(Callback):
    """Lets these schedules look at every validation loss.

    Lightning does it after the callbacks, so that the checkpoint of a validation would miss its own loss.
    """

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hand the loss over."""
        loss: Any = trainer.callback_metrics.get("val/loss")
        if trainer.sanity_checking or loss is None or (not trainer.training and not trainer.validating):
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(float(loss))
