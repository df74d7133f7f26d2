"""The cross-entropy of unseen labels under the adapted model."""

import torch.nn.functional as F
from torch import Tensor

from metagen.core.metric import Metric, Outcome


class CrossEntropy(Metric):
    """-mean_b log p(y_b | x_b) over the query images, in nats; log N is blind guessing."""

    name = "cross_entropy"
    words = "-log p of the own class of a query image, in nats; log N is blind guessing"
    unit = "nats"
    better = "lower"
    needs_logits = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Take the logits (N * Q, N) of the query's labels (N, Q)."""
        assert outcome.logits is not None
        return F.cross_entropy(outcome.logits, outcome.query.y.flatten())
