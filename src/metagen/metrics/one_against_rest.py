r"""The accuracy of telling one new class from all known ones, learned from generated images of it.

The classification accuracy score (:mod:`metagen.metrics.classification_accuracy_score`) needs two or more
new classes. Where one class is held out, its samples are set against real images of the others,

.. math:: \min_{w, b} \operatorname{mean}_i v_i \log(1 + e^{-t_i (w x_i + b)}) + \tfrac{\lambda}{2} \|w\|^2

with t = 1 for samples, -1 for real images of the other classes, and v such that both sides weigh the
same. The score is the balanced accuracy on unseen real images, 50 (true positive rate + true negative
rate), in %: 50 is blind.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from metagen.core.metric import Outcome
from metagen.metrics.classification_accuracy_score import LearnedScore


class OneAgainstRest(LearnedScore):
    """Balanced accuracy of a classifier that knows the new class from its M samples only, in %.

    ``images="support"``: from its K support images only, what to beat. ``images="real"``: from Q / 2 real
    images, tested on as many; NaN for Q < 2. NaN for samples that are not finite.

    Args:
        decay: lambda, the weight of the quadratic penalty.
        images: what the new class is known from, see :class:`~metagen.metrics.of_images.OfImages`.

    Raises:
        MetagenError: ``decay`` is not positive.
    """

    name = "cas_rest"
    needs_others = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Learn from images (N, M, C, H, W)."""
        assert outcome.others is not None
        if self.images == "real":
            one, two = outcome.query.x.tensor_split(2, 1)
            return self.score(one, two, outcome.others)
        return self.score(self.seen(outcome), outcome.query.x, outcome.others)

    def score(self, train: Tensor, test: Tensor, others: tuple[Tensor, Tensor]) -> Tensor:
        """Learn each of N classes from (N, M, C, H, W) and test on (N, Q, C, H, W): their mean, in %."""
        if not (train.numel() and test.numel() and train.isfinite().all()):
            return torch.tensor(torch.nan)
        known, unseen = (_table(part) for part in others)
        scores = [
            self._balanced(_table(new), known, _table(real), unseen)
            for new, real in zip(train, test, strict=True)
        ]
        return torch.tensor(100 * np.mean(scores), dtype=torch.float64)

    def _balanced(
        self, new: np.ndarray, known: np.ndarray, real: np.ndarray, unseen: np.ndarray
    ) -> np.ndarray:
        x, y = np.concatenate([new, known]), np.repeat([1, 0], [len(new), len(known)])
        model = LogisticRegression(C=1 / (self.decay * len(x)), class_weight="balanced", max_iter=1000)
        model.fit(x, y)
        return (model.predict(real).mean() + 1 - model.predict(unseen).mean()) / 2


def _table(images: Tensor) -> np.ndarray:
    """Return pixels (B, P) of images (..., C, H, W)."""
    return images.flatten(-3).flatten(0, -2).double().cpu().numpy()
