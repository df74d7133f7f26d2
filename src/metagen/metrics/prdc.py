r"""Fidelity and diversity told apart, by balls around the features of images.

Naeem, Oh, Uh, Choi, Yoo: *Reliable Fidelity and Diversity Metrics for Generative Models*, ICML 2020;
precision and recall are those of Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing
Generative Models*, NeurIPS 2019. With c real features X, c fake features Y of the same class, and B_k(x)
the open ball around x that reaches its k-th nearest neighbour in its own set:

.. math::
    \text{precision} = \tfrac1c \sum_j [y_j \in \cup_i B_k(x_i)] \quad
    \text{recall} = \tfrac1c \sum_i [x_i \in \cup_j B_k(y_j)] \quad
    \text{density} = \tfrac1{kc} \sum_{ij} [y_j \in B_k(x_i)] \quad
    \text{coverage} = \tfrac1c \sum_i [\exists j: y_j \in B_k(x_i)]

They are averaged over the classes of the episode. See :class:`~metagen.metrics.features.Halves` for the
images that are compared: c = min(Q // 2, M) of each class. Real images have density 1 and coverage
1 - [(c - 1) ... (c - k)] / [(2c - 1) ... (2c - k)] on average, 99.5 % for c = 7 and 98.0 % for c = 20 with
k = 5. With c near k every ball holds nearly everything: take Q >= 8 k to tell generators apart.
"""

from typing import Literal

import torch
from torch import Tensor

from metagen.core.metric import Outcome
from metagen.metrics.features import FeatureMetric, halves
from metagen.ranges import Width, checked


class Prdc(FeatureMetric):
    """What the four share.

    With ``images="relative"`` the samples' value over that of as many real images, episode by episode: 1 is
    as good as real.

    Args:
        k: which neighbour of a feature is on the ball's surface. NaN for c <= k, that is for
            fewer than 2 k + 2 query images or k + 1 samples a class.
        images: see :class:`~metagen.metrics.of_images.OfImages`.

    Raises:
        MetagenError: ``k`` is below 1.
    """

    sources = ("samples", "real", "relative")

    @checked
    def __init__(self, k: Width = 5, images: Literal["samples", "real", "relative"] = "samples") -> None:
        super().__init__(images)
        self.k, self.least = k, k + 1
        self.whole = 100
        if images == "relative":
            self.whole, self.unit = 1, ""

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare as :class:`FeatureMetric` does; ``relative`` divides the two values."""
        if self.images != "relative":
            return super().measure(outcome)
        real, other, samples = halves(outcome)
        return self._defined(real, samples) / self._defined(real, other)

    def inside(self, x: Tensor, y: Tensor) -> Tensor:
        """Tell which y_j lie in the ball of which x_i: (N, a, F) and (N, b, F) to bool (N, a, b)."""
        # The nearest is the point itself.
        radius = _distances(x, x).kthvalue(self.k + 1, -1, keepdim=True).values
        return _distances(x, y) < radius


class Precision(Prdc):
    """Share of the samples that lie in the ball of a real image, in %: are they good?"""

    name = "precision"
    unit = "%"

    def compare(self, real: Tensor, fake: Tensor) -> Tensor:
        """Count the fake ones in the union of the real ones' balls."""
        return self.whole * self.inside(real, fake).any(1).double().mean()


class Recall(Prdc):
    """Share of the real images that lie in the ball of a sample, in %: are the samples diverse?"""

    name = "recall"
    unit = "%"

    def compare(self, real: Tensor, fake: Tensor) -> Tensor:
        """Count the real ones in the union of the fake ones' balls."""
        return self.whole * self.inside(fake, real).any(1).double().mean()


class Density(Prdc):
    """Number of real balls that a sample lies in, over k; real images have 1, the best places more."""

    name = "density"

    def compare(self, real: Tensor, fake: Tensor) -> Tensor:
        """Count the pairs of a fake one and a ball around it."""
        return self.inside(real, fake).double().sum(1).mean() / self.k


class Coverage(Prdc):
    """Share of the real images with a sample in their ball, in %: do the samples reach everywhere?"""

    name = "coverage"
    unit = "%"
    beside = "recognised"

    def compare(self, real: Tensor, fake: Tensor) -> Tensor:
        """Count the balls that are not empty."""
        return self.whole * self.inside(real, fake).any(-1).double().mean()


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # not the matrix-product form: it would turn the distance of an exact copy into rounding noise
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
