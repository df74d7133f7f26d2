r"""Recognizability and diversity of drawings, by features in which one image is enough.

Boutin et al.: *Diversity vs. recognizability: human-like generalization in one-shot generative models*,
NeurIPS 2022. The features f are those of a judge that was trained on other classes (``judge=protonet``). The
prototype of a class is one real image that the generator did not see, p_n = f(query_{n1}), or, as in the
published tables, the first that it did see, p_n = f(support_{n1}), which flatters copies.
"""

from typing import Literal

import torch
from torch import Tensor

from metagen.core.metric import Metric, Outcome
from metagen.errors import MetagenError
from metagen.metrics.features import Extractor
from metagen.metrics.of_images import OfImages
from metagen.ranges import checked


class Recognizability(OfImages):
    r"""Share of the samples that are nearest to the prototype of their own class among all N, in %.

    .. math:: 100 \cdot \operatorname{mean}_{n,m} [\arg\min_{n'} \|f(s_{nm}) - p_{n'}\| = n]

    100 / N is blind. With ``images="real"`` of the other real images of the class, NaN for Q < 2.

    Args:
        images: see :class:`~metagen.metrics.of_images.OfImages`.
        prototype: ``"unseen"``, a query image, or ``"support"``, the first support image.

    Raises:
        MetagenError: ``prototype`` is neither.
    """

    name = "recognizability"
    unit = "%"
    beside = "feature_diversity"
    needs_judge = True

    @checked
    def __init__(
        self,
        images: Literal["samples", "real"] = "samples",
        prototype: Literal["unseen", "support"] = "unseen",
    ) -> None:
        super().__init__(images)
        self.needs_samples = images == "samples"
        self.seen = prototype == "support"

    def measure(self, outcome: Outcome) -> Tensor:
        """Classify samples (N, M, C, H, W), or query images (N, Q - 1, C, H, W)."""
        if self.images == "real":
            # a query image that is the prototype is not classified itself
            return self.share(outcome, outcome.query.x[:, 0 if self.seen else 1 :])
        assert outcome.samples is not None
        return self.share(outcome, outcome.samples)

    def share(self, outcome: Outcome, x: Tensor) -> Tensor:
        """Return the share of images (N, M, C, H, W) that are nearest to their own prototype, in %."""
        if x.shape[1] == 0 or not x.isfinite().all():
            return torch.tensor(torch.nan)
        prototypes = _features(outcome, (outcome.support if self.seen else outcome.query).x[:, :1])[:, 0]
        nearest = torch.cdist(_features(outcome, x).flatten(0, 1), prototypes).argmin(-1)
        own = torch.arange(len(x), device=nearest.device).repeat_interleave(x.shape[1])
        return 100 * (nearest == own).double().mean()


class FeatureDiversity(Metric):
    r"""Standard deviation of the samples of a class in the judge's features, over that of real images.

    .. math:: \operatorname{mean}_n \sqrt{\sum_i \operatorname{var}_m f_i(s_{nm}) \,/\,
              \sum_i \operatorname{var}_q f_i(\text{query}_{nq})}

    1: as diverse as real images; 0: one image per class. Drawings of other characters count as diversity,
    so read it beside ``recognizability``. NaN with fewer than two samples or two query images.
    """

    name = "feature_diversity"
    needs_judge = True
    needs_samples = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare samples (N, M, C, H, W) with queries (N, Q, C, H, W)."""
        assert outcome.samples is not None
        return (_spread(outcome, outcome.samples) / _spread(outcome, outcome.query.x)).mean()


class Originality(Metric):
    r"""Distance of samples to the support image they were drawn from, in features, over that of real images.

    .. math:: \operatorname{mean}_n \frac{\operatorname{mean}_m \|f(s_{nm}) - f(\text{support}_{n1})\|}
              {\operatorname{mean}_q \|f(\text{query}_{nq}) - f(\text{support}_{n1})\|}

    0: copies; 1: as far from it as other real images of the class (Boutin et al.:
    *Diffusion models as artists: are we closing the gap between humans and machines?* ICML 2023, who draw
    recognizability over it). NaN for samples that are not finite.
    """

    name = "originality"
    needs_judge = True
    needs_samples = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare samples (N, M, C, H, W) and queries (N, Q, C, H, W) with the first support image."""
        assert outcome.samples is not None
        start = _features(outcome, outcome.support.x[:, :1])

        def distance(x: Tensor) -> Tensor:
            return (_features(outcome, x) - start).norm(dim=-1).mean(-1)

        return (distance(outcome.samples) / distance(outcome.query.x)).mean()


def _features(outcome: Outcome, x: Tensor) -> Tensor:
    """Map images (N, M, C, H, W) to features (N, M, F)."""
    if not isinstance(outcome.judge, Extractor):
        raise MetagenError("this judge has no features(x), which the metric compares: use judge=protonet")
    return outcome.judge.features(x.flatten(0, 1)).double().unflatten(0, x.shape[:2])


def _spread(outcome: Outcome, x: Tensor) -> Tensor:
    if x.shape[1] < 2:
        return torch.full((len(x),), torch.nan, dtype=torch.float64)
    return _features(outcome, x).var(1).sum(-1).sqrt()
