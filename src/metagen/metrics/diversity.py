"""The diversity of the samples of a class, beside that of real images."""

import torch
from torch import Tensor

from metagen.core.metric import Metric, Outcome


class Diversity(Metric):
    """Pixel standard deviation of the samples of a class over that of its real images.

    mean_n sqrt( mean_p var_m samples[n, m, p] / mean_p var_q query[n, q, p] ), unbiased variances,
    pixels p. 1: as diverse as real images; 0: one image per class. Noise counts as diversity, so
    read it beside ``recognised``. NaN with fewer than two samples or two query images.
    """

    name = "diversity"
    real = 1.0
    needs_samples = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare samples (N, M, C, H, W) with queries (N, Q, C, H, W)."""
        assert outcome.samples is not None
        return (_spread(outcome.samples) / _spread(outcome.query.x.to(outcome.samples))).mean()


def _spread(x: Tensor) -> Tensor:
    """Root mean square over pixels of the deviation over images: (N, M, ...) to (N,)."""
    x = x.flatten(2).double()
    if x.shape[1] < 2:
        return x.new_full((len(x),), torch.nan)
    return x.var(1).mean(-1).sqrt()
