"""The greys at the edges of ink: the image in shades that a drawing in black and white stands for."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen.models.layers import Conv2d

GREY = 16
"""Channels of the net."""


class Shades(nn.Sequential):
    """Logits of E[x | b], pixel by pixel, for ink b (B, 1, S, S), 1 where there is some and -1 elsewhere.

    Strokes in a small image are grey at their edges, in a way that the ink nearly determines; without these
    greys a judge that was trained on them takes real drawings for others. Trained by a logistic loss, whose
    minimum is at the conditional mean.
    """

    def __init__(self) -> None:
        super().__init__(
            Conv2d(1, GREY, 3, padding=1), nn.SiLU(),
            Conv2d(GREY, GREY, 3, padding=1), nn.SiLU(),
            Conv2d(GREY, 1, 3, padding=1),
        )  # fmt: skip

    def error(self, ink: Tensor, x: Tensor) -> Tensor:
        """Return the cross-entropy (B,) of images x (B, 1, S, S) in [0, 1] given their ink."""
        return F.binary_cross_entropy_with_logits(self(ink), x, reduction="none").sum((1, 2, 3))

    def draw(self, ink: Tensor) -> Tensor:
        """Return ink in its shades, each on its own side of 1/2: what is ink is drawn, and nothing else."""
        grey = self(ink).sigmoid()
        return torch.where(ink > 0, grey.clamp(min=0.5 + 1 / 255), grey.clamp(max=0.5))
