"""Steps whose loss or gradient is NaN or infinite are skipped, and end the run if they do not end."""

import logging
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from metagen.config.flat import flatten
from metagen.errors import MetagenError

log = logging.getLogger(__name__)


class SkipBadSteps(Callback):
    """Leave parameters and the optimizer's state as they are where the step would spoil them.

    On a CPU, and with an optimizer that cannot skip by itself, the gradients are taken away before the step.
    A fused optimizer on a GPU skips by itself, so that nothing waits for the GPU: the counters are read where
    the loop logs. Under ``16-mixed`` the loss scaler skips the step, and only the counting is done here.

    Args:
        patience: how many steps in a row may be skipped; the next one ends the run.
        learner: its name, for the error.
        advice: what is likely to help, for the error.

    Attributes:
        total: how many steps were skipped.
    """

    def __init__(self, patience: int, learner: str, advice: str) -> None:
        if patience < 0:
            raise MetagenError(f"max_skips={patience}: expected a number of steps, 0 or more")
        self.patience, self.learner, self.advice = patience, learner, advice
        self.total = self.row = 0
        self._loss: Tensor | None = None
        self._unread: tuple[Tensor, Tensor, Tensor] | None = None

    def state_dict(self) -> dict[str, int]:
        """Return the counters."""
        self._read()
        return {"total": self.total, "row": self.row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.total, self.row = state_dict["total"], state_dict["row"]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what was skipped last."""
        self._read()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Look at the loss."""
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        """Skip the step if it is bad.

        Raises:
            MetagenError: too many in a row.
        """
        assert self._loss is not None
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # The largest entry: a Euclidean norm overflows where nothing else does.
        largest = nn.utils.get_total_norm([p.grad for p in params], float("inf"))
        good = torch.isfinite(largest) & torch.isfinite(self._loss).to(largest.device)
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        logs = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if good.is_cuda and not scaled and getattr(optimizer, "_step_supports_amp_scaling", False):
            self._mask(good, optimizer)
            if logs:
                self._read()
        elif good:
            self.row = 0
        else:
            self.total, self.row = self.total + 1, self.row + 1
            self._tell(trainer.global_step, self._loss)
            for p in params if not scaled else ():
                p.grad = None
        if logs:
            pl_module.log("train/skipped", float(self.total), batch_size=1)
        if self.row > self.patience:
            raise MetagenError(
                f"learner={self.learner}: {self.row} steps in a row, up to step {trainer.global_step}, had a "
                f"loss or a gradient that is NaN or infinite; {self.advice}"
            )

    def _mask(self, good: Tensor, optimizer: Any) -> None:
        """Tell a fused optimizer whether to skip, and count, all on the GPU."""
        bad = (~good).float()
        optimizer.grad_scale, optimizer.found_inf = None, bad
        total, row, longest = self._unread or (
            torch.zeros_like(bad),
            bad.new_tensor(self.row),
            bad.new_tensor(0),
        )
        row = (row + 1) * bad
        self._unread = total + bad, row, torch.maximum(longest, row)

    def _read(self) -> None:
        """Take over what was counted on the GPU."""
        if self._unread is None:
            return
        found, row, longest = (int(count) for count in torch.stack(self._unread).tolist())
        self.total, self.row, self._unread = self.total + found, row, None
        if longest > self.patience:
            self.row = longest
        if found:
            log.warning("%d steps were skipped, loss or gradient not finite", found)

    def _tell(self, step: int, loss: Tensor) -> None:
        log.warning(
            "step %d is skipped: loss %s, gradient not finite (%d in a row)", step, float(loss), self.row
        )


def advice(config: Mapping[str, Any]) -> str:
    """Return what is likely to help against NaN, from the keys of a resolved configuration."""
    tips = []
    if "mixed" in str(config["trainer"]["precision"]):
        tips.append("trainer.precision=32-true")
    rates = {f"learner.{key}": value for key, value in flatten(config["learner"]).items()}
    rates = {key: value for key, value in rates.items() if key.rpartition(".")[2] in ("rate", "lr")}
    rates["optimizer.lr"] = config["optimizer"].get("lr")
    tips += [f"a smaller {key} (now {value})" for key, value in rates.items() if value is not None]
    if not config["trainer"].get("gradient_clip_val"):
        tips.append("trainer.gradient_clip_val=1")
    return "try " + ", or ".join(tips)
