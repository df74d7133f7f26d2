"""How badly the adapted generator predicts unseen images."""

from torch import Tensor

from metagen.metrics.base import Metric, Outcome


class NegativeElbo(Metric):
    """-ELBO of the query images under the adapted model, >= -log p(x | class), in nats per image.

    Kingma, Welling: *Auto-Encoding Variational Bayes*, ICLR 2014. It is the generator's own loss,
    so compare it between models of the same likelihood only.
    """

    name = "negative_elbo"
    unit = "nats"
    better = "lower"

    def measure(self, outcome: Outcome) -> Tensor:
        """Return the query loss."""
        return outcome.loss
