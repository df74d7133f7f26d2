"""The distance of the samples to the nearest support image, beside that of real images."""

import torch
from torch import Tensor

from metagen.core.metric import Metric, Outcome


class Memorisation(Metric):
    """Nearest-support distance of the samples over that of real images.

    mean_n [ mean_m min_k ||samples[n, m] - support[n, k]|| / mean_q min_k ||query[n, q] - support[n, k]|| ]

    with Euclidean norms over pixels and the support images of the own class. 1: as far from the
    support as other real images; near 0: copies. NaN where the query images are copies themselves.
    """

    name = "memorisation"
    real = 1.0
    needs_samples = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare samples (N, M, C, H, W) and queries (N, Q, C, H, W) with support (N, K, C, H, W)."""
        assert outcome.samples is not None
        support = outcome.support.x
        return (
            nearest(outcome.samples, support).mean(-1) / nearest(outcome.query.x, support).mean(-1)
        ).mean()


def nearest(x: Tensor, others: Tensor) -> Tensor:
    """Return the distance to the nearest of ``others`` (N, K, ...), class by class: (N, M, ...) to (N, M)."""
    a, b = x.flatten(2).double(), others.to(x.device).flatten(2).double()
    # not the matrix-product form: it would turn the distance of an exact copy into rounding noise
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)
