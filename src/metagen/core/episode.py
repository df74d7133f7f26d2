"""The contract of an episode: what flows between data, models and learners."""

from typing import NamedTuple

import torch
from torch import Tensor

from metagen.functional import rng

Params = dict[str, Tensor]
"""Parameters and buffers of a model by their qualified name."""


class Shots(NamedTuple):
    """Images of N classes, K of each. A batch of T tasks has a leading T on every field.

    x:   (N, K, C, H, W), pixels in [0, 1], ink = 1.
    y:   (N, K) int64, the episode-local class of each image.
    key: () int64, from which a model draws its noise (see :mod:`metagen.functional.rng`).
    """

    x: Tensor
    y: Tensor
    key: Tensor

    def at(self, index: int) -> "Shots":
        """Return the same images with the noise of inner step ``index``."""
        return self._replace(key=rng.fold_in(self.key, index))

    def minibatch(self, size: int) -> "Shots":
        """Draw ``size`` distinct images of each class (all, if it has no more), as the key says; one task."""
        ways, shots = self.y.shape
        if size >= shots:
            return self
        rows = torch.arange(ways, device=self.y.device)[:, None]
        picks = rng.subset(rng.fold_in(self.key, rows[:, 0]), shots, size)
        return self._replace(x=self.x[rows, picks], y=self.y[rows, picks])


class Episode(NamedTuple):
    """A few-shot task: adapt to ``support``, be judged on ``query``.

    support: K images of each of N classes.
    query:   Q other images of the same classes.
    classes: (N,) int64, index of each class in its stage's list of (pseudo-)classes.
    """

    support: Shots
    query: Shots
    classes: Tensor

    def join(self) -> Shots:
        """Return support and query images of one task together, (N, K + Q, C, H, W)."""
        x = torch.cat((self.support.x, self.query.x), -4)
        return Shots(x, torch.cat((self.support.y, self.query.y), -1), self.support.key)
