"""The cross-entropy of unseen labels under the adapted classifier."""

from torch import Tensor

from metagen.core.metric import Metric, Outcome


class CrossEntropy(Metric):
    """-mean_b log p(y_b | x_b) over the query images, in nats; log N is blind guessing."""

    name = "cross_entropy"
    unit = "nats"
    better = "lower"

    def measure(self, outcome: Outcome) -> Tensor:
        """Return the query loss."""
        return outcome.loss
