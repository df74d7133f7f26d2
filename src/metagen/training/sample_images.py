"""Samples of the model beside the curves, at every validation."""

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from metagen.core.episode import Episode
from metagen.functional import rng
from metagen.training.loggers import log_image, takes_images

SHARE = 0.05
"""Of the time of training that may be spent on samples; where they cost more, validations are left out."""


class SampleImages(Callback):
    """Adapts to the first validation episode and logs its support and new images, as ``samples``.

    Args:
        episode: with a leading T, of which the first task is shown.
        n: new images a class.
    """

    def __init__(self, episode: Episode, n: int = 8) -> None:
        self.support, self.n = episode.support, n
        self._spent = 0.0
        self._begun: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the images, with the weights that are being validated."""
        loggers = [one for one in trainer.loggers if takes_images(one)]
        if trainer.sanity_checking or self._begun is None or not loggers or not trainer.is_global_zero:
            return
        begin = time.perf_counter()
        if self._spent and self._spent > SHARE * (begin - self._begun):
            return
        image = self._drawn(pl_module)
        for logger in loggers:
            log_image(logger, "samples", image, trainer.global_step)
        self._spent += time.perf_counter() - begin

    @torch.no_grad()
    def _drawn(self, module: Any) -> Tensor:
        """Return a row for each class, its support images and then new ones: (H, W, C), uint8."""
        support = type(self.support)(*(leaf[0].to(module.device) for leaf in self.support))
        params = module.objective.params()
        kinds = [x.dtype for x in params.values() if x.is_floating_point()]
        support = support._replace(x=support.x.to(kinds[0] if kinds else torch.float32))
        phi = module.learner.adapt(module.objective, params, support)
        ways = len(support.y)
        y = torch.arange(ways, device=module.device).repeat_interleave(self.n)
        drawn = module.objective.call("sample", {**params, **phi}, y, rng.fold_in(support.key, 1))
        rows = torch.cat([support.x.float(), drawn.unflatten(0, (ways, self.n)).float()], 1)
        grid = rows.clamp(0, 1).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
        return (grid * 255).round().to(torch.uint8).cpu()
