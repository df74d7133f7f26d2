"""Episodes of points from a normal distribution, drawn as images, with a judge that shows the pixels."""

import torch
from torch import Tensor

from metagen.core.episode import Shots
from metagen.core.metric import Outcome
from metagen.functional import rng


class Shows:
    """A judge whose features are the pixels; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def features(self, x: Tensor) -> Tensor:
        self.asked += 1
        return x.flatten(1)


def points(seed: int, count: int, dims: int = 2) -> Tensor:
    """Draw standard normal points for each of three classes, (3, M, 1, 1, dims) float64."""
    return rng.normal(rng.key(seed), (3, count, 1, 1, dims), torch.float64)


def episode(samples: Tensor | None, queries: int = 40, seed: int = 0, shots: int = 5) -> Outcome:
    """Return an episode whose real images are points; the samples say of how many dimensions."""
    dims = 2 if samples is None else samples.shape[-1]
    y = torch.arange(3)[:, None]
    support, query = (
        Shots(points(1000 + 2 * seed + i, k, dims), y.expand(3, k), rng.key(seed, i))
        for i, k in enumerate((shots, queries))
    )
    return Outcome(support, query, torch.arange(3), torch.tensor(0.0), Shows(), samples)
