"""A training that has diverged says so while it happens, and at its end."""

import logging
import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)

PATIENCE = 3
"""Looks in a row at a loss far above its start after which a training counts as diverged; one, at its end."""


def far_above(loss: float, start: float) -> bool:
    r"""Return whether a loss is more than :math:`\ell_0 + 2 \max(1, |\ell_0|)`, with its start l_0.

    >>> far_above(2.9, 0.5), far_above(1000.0, 500.0), far_above(-4.0, -5.0)
    (True, False, False)
    """
    return loss > start + 2 * max(1.0, abs(start))


class Divergence(Callback):
    r"""Warns where a loss is not finite, or stays far above its start: see :func:`far_above`.

    It looks at every validation; where there is none, whenever the training loss is logged. A loss starts at
    the first value that was logged of it: of the training's that of step 0, with which the validation's is
    compared, too, if that is lower: the first validation may come when all is lost.

    Args:
        advice: what is likely to help.
        validated: whether there are validations.
        told: whether the value of the training loss tells anything; that of a GAN does not.

    Attributes:
        found: what was found last, in words; empty where all is well.
    """

    def __init__(self, advice: str, validated: bool = True, told: bool = True) -> None:
        self.advice, self.validated, self.told, self.found = advice, validated, told, ""
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
        """Remember the first training loss; look at the others where there is no validation."""
        metrics = trainer.callback_metrics
        if "train/loss" not in metrics:
            return
        if "train/loss" not in self.starts:
            self._start("train/loss", float(metrics["train/loss"]))
        every = getattr(trainer, "log_every_n_steps", 0)
        if not self.validated and every and trainer.global_step % every == 0:
            self._look(trainer, PATIENCE)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at both losses."""
        if not trainer.sanity_checking:
            self._look(trainer, PATIENCE)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at what was seen last: nothing comes after it that could be better."""
        if not self.found:
            last = [name for name, row in self.rows.items() if row]
            self._say(trainer, self._far(last[0], trainer) if last else "")

    def _look(self, trainer: L.Trainer, patience: int) -> None:
        names = ("val/loss", "train/loss") if self.told else ("val/loss",)
        seen = {name: trainer.callback_metrics.get(name) for name in names}
        losses = {name: float(value) for name, value in seen.items() if value is not None}
        self._say(trainer, self._judged(losses, trainer, patience))

    def _say(self, trainer: L.Trainer, found: str) -> None:
        self.found = found
        if found and trainer.is_global_zero:
            log.warning("step %d: %s, the training diverges: %s", trainer.global_step, found, self.advice)

    def _judged(self, losses: dict[str, float], trainer: L.Trainer, patience: int) -> str:
        """Return what is wrong with the losses, in words."""
        found = ""
        for name, loss in losses.items():
            if not math.isfinite(loss):
                return f"{name} is {loss}"
            start = self._start(name, loss)
            far = start is not None and far_above(loss, start)
            self.rows[name] = self.rows.get(name, 0) + 1 if far else 0
            if self.rows[name] >= patience:
                found = found or self._far(name, trainer)
        return found

    def _far(self, name: str, trainer: L.Trainer) -> str:
        loss, row = float(trainer.callback_metrics[name]), self.rows[name]
        of = "validations" if self.validated else "looks"
        lasted = f" for {row} {of}" if row > 1 else ""
        return f"{name} {loss:.4g} is far above its start {self._begun(name):.4g}{lasted}"

    def _start(self, name: str, loss: float) -> float | None:
        if math.isfinite(loss):
            self.starts.setdefault(name, loss)
        return self._begun(name) if name in self.starts else None

    def _begun(self, name: str) -> float:
        """Return the start of a loss; of the validation's, the lower one of both."""
        compared = ("val/loss", "train/loss") if name == "val/loss" and self.told else (name,)
        return min(self.starts[one] for one in compared if one in self.starts)
