"""Distance between real and generated images, without an assumption about their distribution."""

import warnings
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from metagen.metrics.features import FeatureMetric
from metagen.ranges import checked


class Kid(FeatureMetric):
    r"""Squared maximum mean discrepancy of the judge's features (Binkowski et al.: *Demystifying MMD
    GANs*, ICLR 2018).

    .. math:: \operatorname{E} k(x, x') + \operatorname{E} k(y, y') - 2 \operatorname{E} k(x, y), \quad
              k(x, y) = (x^\top y / F + 1)^3

    with the classes of the episode pooled: N * min(Q // 2, M) real images x and as many samples y (see
    :class:`~metagen.metrics.features.Halves`), all of them in one subset. The estimator has no bias
    for independent images, but equal numbers of each class are not: an image has fewer others of its
    class in its own set than in the other one, which takes real images below 0 for N > 1. A perfect
    generator scores what ``kid_real`` does, not 0, and single episodes scatter around it. The
    extractor is the judge, not Inception: do not compare with published values. NaN with fewer than two
    images a class.

    Args:
        images: see :class:`~metagen.metrics.of_images.OfImages`.
    """

    name = "kid"
    words = "distance of new from real images: maximum mean discrepancy of the judge's features"
    better = "lower"

    @checked
    def __init__(self, images: Literal["samples", "real"] = "samples") -> None:
        super().__init__(images)

    def compare(self, real: Tensor, fake: Tensor) -> Tensor:
        """Compare features (N, c, F)."""
        real, fake = real.flatten(0, 1), fake.flatten(0, 1)
        # It shuffles even where a subset is everything, and warns that it keeps what it is given.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            kid = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=len(real))
            kid.update(real, real=True)
            kid.update(fake, real=False)
            return kid.compute()[0]
