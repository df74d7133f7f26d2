"""Distance between real and generated images as two Gaussians of features."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from metagen.metrics.features import FeatureMetric
from metagen.ranges import checked


class Fid(FeatureMetric):
    r"""Fréchet distance of the judge's features (Heusel et al.: *GANs Trained by a Two Time-Scale Update
    Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017).

    .. math:: \|\mu - \mu'\|^2 + \operatorname{tr}(\Sigma + \Sigma' - 2 (\Sigma \Sigma')^{1/2})

    in squared units of the features, with the classes of the episode pooled: N * min(Q // 2, M) real
    images and as many samples (see :class:`~metagen.metrics.features.Halves`). With tens of images it
    is far above its limit even for real images: read it beside ``fid_real``, at equal numbers of
    images. The extractor is the judge, not Inception: do not compare with published values. NaN with
    fewer than two images a class.

    Args:
        images: see :class:`~metagen.metrics.of_images.OfImages`.
    """

    name = "fid"
    words = "distance of new from real images, as two Gaussians of the judge's features"
    better = "lower"

    @checked
    def __init__(self, images: Literal["samples", "real"] = "samples") -> None:
        super().__init__(images)

    def compare(self, real: Tensor, fake: Tensor) -> Tensor:
        """Compare features (N, c, F)."""
        real, fake = real.flatten(0, 1), fake.flatten(0, 1)
        fid = FrechetInceptionDistance(feature=_Span(torch.cat([real, fake])), normalize=True)
        fid.update(real, real=True)
        fid.update(fake, real=False)
        # rounding leaves a negative zero of equal sets
        return fid.compute().clamp(min=0)


class _Span(nn.Module):
    """Coordinates in the space that the features (S, F) span.

    They have the same distance, and fewer axes when images are few: the eigenvalues of a matrix of
    512 x 512 numbers would take longer than the adaptation.
    """

    basis: Tensor

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.register_buffer("basis", torch.linalg.qr(x.T)[0])
        self.num_features = min(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, F) to coordinates (B, num_features)."""
        return x @ self.basis
