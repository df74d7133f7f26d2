r"""The classification accuracy score: a classifier learns the classes of an episode from generated images.

Ravuri, Vinyals: *Classification Accuracy Score for Conditional Generative Models*, NeurIPS 2019. The
classifier is a softmax regression on pixels,

.. math:: \min_{W, b} \operatorname{mean}_i -\log \operatorname{softmax}(W x_i + b)_{y_i}
          + \tfrac{\lambda}{2} \|W\|^2

trained by L-BFGS for every episode anew. It has seen no other image, unlike the judge; and it is convex,
so that the score depends on the images alone: with a few dozen images a network's score would differ with
its initialisation by as much as between generators. The mean makes it blind to repetition: a
generator that copies the support scores exactly what the support does.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import grid_sample

from metagen.core.metric import Outcome
from metagen.functional import rng
from metagen.functional.affine import affine_grid
from metagen.metrics.of_images import OfImages
from metagen.ranges import PositiveFloat, checked


class LearnedScore(OfImages):
    """The accuracy of a classifier that is trained for the episode, on the N * Q query images.

    Args:
        decay: lambda, the weight of the quadratic penalty.
        images: what it is trained on, see :class:`~metagen.metrics.of_images.OfImages`.

    Raises:
        MetagenError: ``decay`` is not positive.
    """

    unit = "%"
    sources = ("samples", "support", "real")
    costly = True

    @checked
    def __init__(
        self, decay: PositiveFloat = 1e-3, images: Literal["samples", "support", "real"] = "samples"
    ) -> None:
        super().__init__(images)
        self.decay = decay
        self.needs_samples = images == "samples"

    def seen(self, outcome: Outcome) -> Tensor:
        """Return the support images (N, K, C, H, W) or the samples (N, M, C, H, W)."""
        if self.images == "support":
            return outcome.support.x
        assert outcome.samples is not None
        return outcome.samples


class ClassificationAccuracyScore(LearnedScore):
    """Accuracy of a classifier that saw the N * M samples only, in %; 100 / N is blind.

    ``images="support"``: it saw the N * K support images only, what a generator has to beat.
    ``images="real"``: Q / 2 real images of each class, not M, so no strict bound. Each half of the query
    images is classified by what the other half taught, so that all N * Q are tested once; NaN for Q < 2.
    See :class:`AugmentedScore`, too. NaN for N = 1 or samples that are not finite.

    Args:
        decay: see :class:`LearnedScore`.
        images: see :class:`LearnedScore`.
    """

    name = "cas"

    def measure(self, outcome: Outcome) -> Tensor:
        """Learn from images (N, M, C, H, W)."""
        if self.images != "real":
            return self.score(self.seen(outcome), outcome.query.x)
        queries = outcome.query.x.shape[1]
        one, two = outcome.query.x.tensor_split(2, 1)
        right = self.score(two, one) * one.shape[1] + self.score(one, two) * two.shape[1]
        return right / queries

    def score(self, train: Tensor, test: Tensor) -> Tensor:
        """Learn from (N, M, C, H, W) and return the accuracy on (N, Q, C, H, W), in %."""
        ways = len(train)
        if ways < 2 or not (train.numel() and test.numel() and train.isfinite().all()):
            return torch.tensor(torch.nan)
        x, y = _table(train)
        model = LogisticRegression(C=1 / (self.decay * len(x)), max_iter=1000).fit(x, y)
        return torch.tensor(100.0 * model.score(*_table(test)), dtype=torch.float64)


class AugmentedScore(ClassificationAccuracyScore):
    """The same of a classifier that saw random small affine changes of the support images.

    Every support image is used equally often; the changes are a function of the episode's key.

    Args:
        count: changed images a class, rounded up to a multiple of K; 64 is the default of ``samples``.
        decay: see :class:`LearnedScore`.

    Raises:
        MetagenError: ``count`` is below 1, or ``decay`` is not positive.
    """

    name = "cas_augmented"

    @checked
    def __init__(self, count: Annotated[int, Ge(1), Le(10_000)] = 64, decay: PositiveFloat = 1e-3) -> None:
        super().__init__(decay)
        self.count, self.needs_samples = count, False

    def measure(self, outcome: Outcome) -> Tensor:
        """Learn from changed support images (N, count, C, H, W)."""
        support = outcome.support.x
        copies = support.repeat(1, -(-self.count // support.shape[1]), 1, 1, 1)
        return self.score(_moved(copies, rng.fold_in(outcome.support.key, 2)), outcome.query.x)


def _table(images: Tensor) -> tuple:
    """Return pixels (N * M, P) and classes (N * M,) as arrays."""
    y = torch.arange(len(images)).repeat_interleave(images.shape[1])
    return images.flatten(0, 1).flatten(1).double().cpu().numpy(), y.numpy()


def _moved(x: Tensor, key: Tensor) -> Tensor:
    """Shift by up to 2 pixels, turn by up to 10 degrees and scale by up to 10 %, each image by itself."""
    u = 2 * rng.uniform(key, (x.shape[0] * x.shape[1], 4), torch.float64) - 1
    turn, scale, shift = u[:, 0] * math.radians(10), 1 + 0.1 * u[:, 1], u[:, 2:] * 4 / x.shape[-1]
    cos, sin = scale * turn.cos(), scale * turn.sin()
    maps = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], -1).view(-1, 2, 3)
    flat = x.flatten(0, 1).double()
    grid = affine_grid(maps.to(flat), *flat.shape[-2:])
    return grid_sample(flat, grid, align_corners=False).view(x.shape)
