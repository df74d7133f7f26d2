"""Prototypical networks."""

from torch import nn

from metagen.core.episode import Params, Shots
from metagen.core.learner import Learner, State
from metagen.core.objective import Objective
from metagen.errors import MetagenError


class ProtoNet(Learner):
    r"""Classify by the nearest mean of a class in feature space (Snell et al., NeurIPS 2017).

    .. math:: p(y = n \mid x) \propto \exp(-\|f_\theta(x) - c_n\|^2), \quad
              c_n = \frac{1}{K} \sum_k f_\theta(x_{nk})

    Less a term that all classes share this is the linear classifier with weights 2 c_n and biases
    -||c_n||^2, which is what the support set writes into the model's ``readout``: any number of ways
    fits, and gradient steps may follow (``learner=proto_maml``).
    """

    lowers = "all"  # it differentiates once

    def __init__(self) -> None:
        super().__init__(steps=0)

    def bind(self, objective: Objective, classes: int) -> None:
        """Check that the model has features and a linear readout."""
        if not isinstance(getattr(objective.model, "readout", None), nn.Linear):
            raise MetagenError(
                f"learner=protonet needs a classifier with features, such as model=conv4; for "
                f"{type(objective.model).__name__} use learner=amortized"
            )

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return the readout that the means of the classes are."""
        features = objective.call("features", params, support.x.flatten(0, 1))
        means = features.unflatten(0, support.y.shape).mean(1)
        return State({"readout.weight": 2 * means, "readout.bias": -means.square().sum(-1)}, {})
