"""Amortised adaptation: a network reads the support set."""

from metagen.episode import Params, Shots
from metagen.errors import MetagenError
from metagen.learners.base import Learner, State
from metagen.objective import Objective


class Amortized(Learner):
    r"""phi = (theta, c) with c = encode(support): one forward pass instead of gradient steps.

    .. math:: \min_\theta \sum_t L(\theta, \text{encode}_\theta(\text{support}_t); \text{query}_t)

    Edwards and Storkey, *Towards a Neural Statistician*, ICLR 2017; Garnelo et al., *Conditional
    Neural Processes*, ICML 2018.
    """

    def __init__(self) -> None:
        super().__init__(steps=0)

    def bind(self, objective: Objective, classes: int) -> None:
        """Check that the model can read a support set."""
        if not objective.model.encoder:
            raise MetagenError(
                f"learner=amortized needs a model that encodes a support set, such as model=vae; "
                f"{type(objective.model).__name__} does not: use learner=maml"
            )

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return the context that the encoder wrote."""
        return State(objective.call("encode", params, support), {})
