"""Share of query images that the adapted classifier gets right."""

from torch import Tensor

from metagen.metrics.base import Metric, Outcome


class Accuracy(Metric):
    """100 * mean_b [argmax_n logits_bn == y_b] over the N * Q query images, in %; 100 / N is blind."""

    name = "accuracy"
    unit = "%"
    needs_logits = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare logits (N * Q, N) with the query's labels (N, Q)."""
        assert outcome.logits is not None
        return 100 * (outcome.logits.argmax(-1) == outcome.query.y.flatten()).double().mean()
