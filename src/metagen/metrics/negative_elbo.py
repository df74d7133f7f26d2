"""The negative ELBO of unseen images under the adapted generator."""

from typing import Any, Literal

from torch import Tensor

from metagen.core.metric import Metric, Outcome


class NegativeElbo(Metric):
    """-ELBO of the query images under the adapted model, >= -log p(x | class), in nats per image.

    Kingma, Welling: *Auto-Encoding Variational Bayes*, ICLR 2014. It is the generator's own loss,
    so compare it between models of the same likelihood only.
    """

    name = "negative_elbo"
    words = "upper bound of -log p of unseen images of the class, nats an image"
    unit: Literal["%", "nats", "bits", ""] = "nats"
    better = "lower"

    def unfit(self, model: Any) -> str | None:
        """Return what the model's loss is, where it is not in nats."""
        if model.loss_unit == "nats":
            return None
        return (
            f"the loss of {type(model).__name__} is a {model.loss_unit}, no bound of -log p in nats: "
            f"judge its samples instead, by metrics such as recognised or coverage"
        )

    def measure(self, outcome: Outcome) -> Tensor:
        """Return the query loss."""
        return outcome.loss
