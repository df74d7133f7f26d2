"""Share of query images that the adapted model takes for their class."""

from torch import Tensor

from metagen.core.metric import Metric, Outcome


class Accuracy(Metric):
    """100 * mean_b [argmax_n logits_bn == y_b] over the N * Q query images, in %; 100 / N is blind.

    A generator classifies by Bayes' rule: logits_bn = log p(x_b | support images of class n), which takes N
    likelihoods an image (:func:`metagen.evaluation.generative_classifier.class_logits`).
    """

    name = "accuracy"
    words = "share of the query images that are given their own class, in %; 100 / N is blind guessing"
    unit = "%"
    needs_logits = True

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare logits (N * Q, N) with the query's labels (N, Q)."""
        return self._share(outcome, outcome.logits)

    @staticmethod
    def _share(outcome: Outcome, logits: Tensor | None) -> Tensor:
        assert logits is not None
        return 100 * (logits.argmax(-1) == outcome.query.y.flatten()).double().mean()


class InductiveAccuracy(Accuracy):
    """Accuracy where every query image is classified by itself, with the support's batch statistics."""

    name = "accuracy_inductive"
    words = "accuracy where every query image is classified by itself, with the support's batch statistics"

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare the inductive logits with the query's labels."""
        return self._share(outcome, outcome.inductive)


class TransductiveAccuracy(Accuracy):
    """Accuracy where the query images are normalised with each other: they share what they are."""

    name = "accuracy_transductive"
    words = "accuracy where the query images are normalised with each other, and so share what they are"

    def measure(self, outcome: Outcome) -> Tensor:
        """Compare the transductive logits with the query's labels."""
        return self._share(outcome, outcome.transductive)
