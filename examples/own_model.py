"""A model of one's own under a meta-learner, with Lightning's own trainer and callback.

python examples/own_model.py
"""

import sys

import lightning as L
import torch
from torch import Tensor, nn

import metagen


class Mean(nn.Module):
    """p(x | class) = N(x; m, 1) with one image m for all classes; any module with a ``loss`` will do."""

    def __init__(self, size: int = 28) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(size, size))

    def loss(self, shots: metagen.Shots) -> Tensor:
        """Return -log p up to a constant, the mean over the images (N, K, 1, H, W)."""
        return 0.5 * (shots.x - self.mean).square().flatten(3).sum(-1).mean()


class Report(L.Callback):
    """Says at the end what the meta-training came to."""

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Print the last validation loss."""
        sys.stdout.write(f"step {trainer.global_step}: val/loss {trainer.callback_metrics['val/loss']:.1f}\n")


setup = metagen.build(["learner=transfer", "task.val_episodes=4"])
experiment = metagen.Experiment(
    Mean(), setup.experiment.learner, lambda params: torch.optim.Adam(params, 0.1)
)
trainer = L.Trainer(
    max_steps=60, val_check_interval=30, check_val_every_n_epoch=None, accelerator="cpu", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[Report()],
)  # fmt: skip
trainer.fit(experiment, datamodule=setup.data)
