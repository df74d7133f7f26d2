"""The judge's features of two sets of images, in halves of equal size."""

from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from metagen.core.metric import Outcome
from metagen.errors import MetagenError
from metagen.metrics.of_images import OfImages


@runtime_checkable
class Extractor(Protocol):
    """A judge that shows its features."""

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, F)."""


class Halves(NamedTuple):
    """Features of c = min(Q // 2, M) images of each class in each part, (N, c, F) float64.

    real:    of the first c query images.
    other:   of the c query images after them; real against other is the score of a perfect generator.
    samples: of the first c samples.
    """

    real: Tensor
    other: Tensor
    samples: Tensor


def halves(outcome: Outcome) -> Halves:
    """Split the query images, whose order is random, and take as many samples.

    These metrics depend on the number of images, so that values are comparable at equal c only.

    Raises:
        MetagenError: the judge has no ``features``.
    """
    assert outcome.samples is not None
    count = min(outcome.query.x.shape[1] // 2, outcome.samples.shape[1])
    query = _features(outcome.judge, outcome.query.x)
    samples = _features(outcome.judge, outcome.samples)
    return Halves(query[:, :count], query[:, count : 2 * count], samples[:, :count])


@lru_cache(maxsize=2)
def _features(judge: object, x: Tensor) -> Tensor:
    """Map images (N, M, C, H, W) to features (N, M, F) on the CPU.

    All metrics of an episode hand over the same two tensors, which are known by their identity.
    """
    if not isinstance(judge, Extractor):
        raise MetagenError("this judge has no features(x), which the metric compares: use judge=basenet")
    return judge.features(x.flatten(0, 1)).double().cpu().unflatten(0, x.shape[:2])


class FeatureMetric(OfImages):
    """A comparison of real images with samples, or with other real images.

    It is NaN with fewer than ``least`` images a class in each part, or where a feature is not finite.

    Args:
        images: see :class:`~metagen.metrics.of_images.OfImages`; the second half of the query images are the
            ``real`` ones.

    Attributes:
        least: the smallest c; Q is to be twice as large.
    """

    needs_judge = True
    needs_samples = True
    costly = True
    least: int = 2

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare the first half of the query images with the samples, or with the second half."""
        real, other, samples = halves(outcome)
        return self._defined(real, other if self.images == "real" else samples)

    def _defined(self, real: Tensor, fake: Tensor) -> Tensor:
        if real.shape[1] < self.least or not (real.isfinite().all() and fake.isfinite().all()):
            return torch.tensor(torch.nan)
        return self.compare(real, fake)

    def compare(self, real: Tensor, fake: Tensor) -> Tensor:
        """Map two sets of features (N, c, F) to a scalar."""
        raise NotImplementedError
