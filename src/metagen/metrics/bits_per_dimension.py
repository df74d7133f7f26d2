"""The negative ELBO of unseen images, in bits per pixel and channel."""

import math

from torch import Tensor

from metagen.core.metric import Outcome
from metagen.metrics.negative_elbo import NegativeElbo


class BitsPerDimension(NegativeElbo):
    """-ELBO of the query images over C H W ln 2: what it costs to send a number of 256 levels, 8 if blindly.

    It is that for models whose pixels are discretised (``model.pixels=logistic``); of a Bernoulli likelihood
    it is the cost of a black or white pixel, 1 if blindly. The record names which one it is.
    """

    name = "bits_per_dimension"
    unit = "bits"

    def measure(self, outcome: Outcome) -> Tensor:
        """Return the query loss, nats per image, in bits per dimension."""
        return outcome.loss / (math.prod(outcome.query.x.shape[-3:]) * math.log(2))
