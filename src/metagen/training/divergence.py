"""A training that has diverged says so while it happens, and at its end."""

import logging
import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)

PATIENCE = 3
"""Validations in a row with a loss far above its start after which a training counts as diverged."""


def far_above(loss: float, start: float) -> bool:
    r"""Return whether a loss is more than :math:`\ell_0 + 2 \max(1, |\ell_0|)`, with its start l_0.

    >>> far_above(2.9, 0.5), far_above(1000.0, 500.0), far_above(-4.0, -5.0)
    (True, False, False)
    """
    return loss > start + 2 * max(1.0, abs(start))


class Divergence(Callback):
    r"""Warns where the validation loss is not finite, or a loss stays far above its start.

    See :func:`far_above`; the start of a loss is the first value that was logged of it: of the training's
    that of step 0.

    Args:
        advice: what is likely to help.

    Attributes:
        found: what was found last, in words; empty where all is well.
    """

    def __init__(self, advice: str) -> None:
        self.advice, self.found = advice, ""
        self.starts: dict[str, float] = {}
        self.rows: dict[str, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to know."""
        return {"starts": dict(self.starts), "rows": dict(self.rows), "found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.starts, self.rows = dict(state_dict["starts"]), dict(state_dict["rows"])
        self.found = state_dict["found"]

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Remember the first training loss."""
        if "train/loss" not in self.starts and "train/loss" in trainer.callback_metrics:
            self._start("train/loss", float(trainer.callback_metrics["train/loss"]))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at both losses."""
        if trainer.sanity_checking:
            return
        seen = {name: trainer.callback_metrics.get(name) for name in ("val/loss", "train/loss")}
        losses = {name: float(value) for name, value in seen.items() if value is not None}
        self.found = self._judged(losses)
        if self.found and trainer.is_global_zero:
            log.warning(
                "step %d: %s, the training diverges: %s", trainer.global_step, self.found, self.advice
            )

    def _judged(self, losses: dict[str, float]) -> str:
        """Return what is wrong with the losses, in words."""
        for name, loss in losses.items():
            if not math.isfinite(loss):
                return f"{name} is {loss}"
            start = self._start(name, loss)
            far = start is not None and far_above(loss, start)
            self.rows[name] = self.rows.get(name, 0) + 1 if far else 0
            if self.rows[name] >= PATIENCE:
                row = self.rows[name]
                return f"{name} {loss:.4g} is far above its start {start:.4g} for {row} validations"
        return ""

    def _start(self, name: str, loss: float) -> float | None:
        if math.isfinite(loss):
            self.starts.setdefault(name, loss)
        return self.starts.get(name)
