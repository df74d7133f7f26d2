"""The share of samples that are copies of the support images."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Lt
from torch import Tensor

from metagen.core.metric import Metric, Outcome
from metagen.metrics.memorisation import nearest
from metagen.ranges import checked


class Copies(Metric):
    r"""Share of the samples that are as near to the support as the nearest few real images, in %.

    .. math:: 100 \cdot \operatorname{mean}_{n,m} [r(s_{nm}) \le \tau], \quad
              r(x) = \min_k \|x - \text{support}_{nk}\| \,/\, \operatorname{mean}_q d_{nq}

    with d_nq the distance of query image q to its nearest support image, Euclidean over pixels and
    within the class, and tau the ``quantile`` of r over the N * Q query images, placed at rank
    quantile * (N Q + 1) so that a further real image is below it with that probability. 5: as real
    images; 100: every sample is a copy. Where ``memorisation`` averages, and so hides a few copies
    among many new images, this counts them. Smooth images are near to everything: read
    ``support_bias`` beside it, which is blind to that. NaN for fewer than 1 / quantile - 1 query
    images, or where those of a class are copies themselves.

    Args:
        quantile: share of the real images that count as near.

    Raises:
        MetagenError: ``quantile`` is not between 0 and 1.
    """

    name = "copies"
    unit = "%"
    better = "lower"
    needs_samples = True

    @checked
    def __init__(self, quantile: Annotated[float, Gt(0), Lt(1)] = 0.05) -> None:
        self.quantile = quantile

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare samples (N, M, C, H, W) and queries (N, Q, C, H, W) with support (N, K, C, H, W)."""
        assert outcome.samples is not None
        real, fake = (nearest(x, outcome.support.x) for x in (outcome.query.x, outcome.samples))
        scale = real.mean(-1, keepdim=True)
        if self.quantile * (real.numel() + 1) < 1 or not (scale > 0).all() or not fake.isfinite().all():
            return torch.tensor(torch.nan)
        threshold = np.quantile((real / scale).cpu().numpy(), self.quantile, method="weibull")
        return 100 * (fake / scale <= float(threshold)).double().mean()


class SupportBias(Metric):
    r"""Share of the samples that are nearer to the support than to as many unseen real images, in %.

    .. math:: 100 \cdot \operatorname{mean}_{n,m,g} [\min_k \|s_{nm} - \text{support}_{nk}\|
              < \min_{q \in g} \|s_{nm} - \text{query}_{nq}\|]

    over the disjoint groups g of K query images of the own class; ties count one half. The question
    of Meehan, Chaudhuri, Dasgupta: *A Non-Parametric Test to Detect Data-Copying in Generative
    Models*, AISTATS 2020. 50: the support is no nearer than any other images of the class; 100: every
    sample is a copy. NaN for fewer than K query images.
    """

    name = "support_bias"
    unit = "%"
    better = "lower"
    needs_samples = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare the distances of samples (N, M, C, H, W) to support and query images."""
        assert outcome.samples is not None
        shots = outcome.support.x.shape[1]
        groups = [g for g in outcome.query.x.split(shots, 1) if g.shape[1] == shots]
        if not groups or not outcome.samples.isfinite().all():
            return torch.tensor(torch.nan)
        seen = nearest(outcome.samples, outcome.support.x)
        unseen = torch.stack([nearest(outcome.samples, group) for group in groups])
        return 100 * ((seen < unseen).double() + (seen == unseen).double() / 2).mean()
