r"""Distributions of a pixel given a decoder's numbers: Bernoulli, and a discretised logistic of 256 levels.

The logistic is that of Salimans et al., *PixelCNN++*, ICLR 2017, with one component: a level is the mass of
a logistic between its neighbours' borders, and the outermost levels take what lies beyond them. With
pixels in [-1, 1], half a level h = 1 / 255, and mean m and scale s of a pixel of a channel,

.. math:: p(x) = \sigma\left(\frac{x + h - m}{s}\right) - \sigma\left(\frac{x - h - m}{s}\right)

Channels are independent given z.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metagen.errors import MetagenError, nearest
from metagen.models.blocks import log_bernoulli

LEVELS = 255
LEAST, MOST = -7.0, 1.0
"""Logarithms of the smallest scale, with nearly all mass on one level, and of the largest."""


class PixelLikelihood:
    """p(x | output) for images of ``channels`` channels.

    Attributes:
        name: what a record calls it.
        maps: how many maps of numbers it needs of a decoder.
    """

    name: ClassVar[str]
    maps: int

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Return log p(x | output) of images x (B, C, H, W) in [0, 1], in nats per image (B,)."""
        raise NotImplementedError

    def mean(self, output: Tensor) -> Tensor:
        """Map a decoder's numbers (B, maps, H, W) to the images they stand for, (B, C, H, W) in [0, 1]."""
        raise NotImplementedError


class Bernoulli(PixelLikelihood):
    """Pixels that are ink or not; grey ones count as soft targets, of which this is no likelihood."""

    name = "Bernoulli"

    def __init__(self, channels: int) -> None:
        self.maps = channels

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Return sum_i x_i log d_i + (1 - x_i) log(1 - d_i) with d = sigmoid(output)."""
        return log_bernoulli(x, output)

    def mean(self, output: Tensor) -> Tensor:
        """Return the probability of ink."""
        return output.sigmoid()


class Logistic(PixelLikelihood):
    """256 levels of grey or colour: the mean and the logarithm of the scale for every number of a pixel."""

    name = "discretised logistic"

    def __init__(self, channels: int) -> None:
        self.maps = 2 * channels

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the sum over pixels and channels of the logarithm of a level's mass."""
        mean, log_scale = output.chunk(2, 1)
        # bounded smoothly, whatever a large step of an inner loop makes of it; at 0 broad
        scale = (LEAST + (MOST - LEAST) * (log_scale + 1).sigmoid()).exp()
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)), exact however far in the tails
        gap, half = (2 * x - 1 - mean) / scale, 1 / (LEVELS * scale)
        below, above = -F.softplus(-gap - half), -F.softplus(gap - half)
        within = below + above + torch.log(-torch.expm1(-2 * half))
        levels = LEVELS * x
        mass = torch.where(levels < 0.5, below, torch.where(levels > LEVELS - 0.5, above, within))
        return mass.flatten(1).sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        """Return the means, cut off at black and white."""
        return ((output.chunk(2, 1)[0] + 1) / 2).clamp(0, 1)


KINDS: dict[str, type[Bernoulli] | type[Logistic]] = {"bernoulli": Bernoulli, "logistic": Logistic}


def pixel_likelihood(kind: str | None, colours: int) -> PixelLikelihood:
    """Return the likelihood that a configuration names; None: Bernoulli for grey images, logistic for colour.

    Raises:
        MetagenError: there is none of that name.
    """
    kind = kind or ("bernoulli" if colours == 1 else "logistic")
    if kind not in KINDS:
        expected = ", ".join(KINDS)
        raise MetagenError(f"model.pixels={kind}: expected {expected}{nearest(kind, tuple(KINDS))}")
    return KINDS[kind](colours)
