"""Amortised adaptation: a network reads the support set."""

from metagen.core.episode import Params, Shots
from metagen.core.learner import Learner, State
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng


class Amortized(Learner):
    r"""phi = (theta, c) with c = encode(support): one forward pass instead of gradient steps.

    .. math:: \min_\theta \sum_t L(\theta, \text{encode}_\theta(\text{support}_t); \text{query}_t)

    Edwards and Storkey, *Towards a Neural Statistician*, ICLR 2017; Garnelo et al., *Conditional
    Neural Processes*, ICML 2018.

    Args:
        any_shots: every training step reads another number of the K support images, from 0 to K, all of
            them as often; without any, c is the model's own row, which so learns to be the prior.
    """

    lowers = "all"  # it differentiates once

    def __init__(self, any_shots: bool = False) -> None:
        super().__init__(steps=0)
        self.any_shots, self.now = any_shots, 0

    def set_step(self, step: int) -> None:
        """Remember the meta-training step, which decides how many images are read."""
        self.now = step

    def bind(self, objective: Objective, classes: int) -> None:
        """Check that the model can read a support set."""
        if not objective.model.encoder:
            self.refuse_memory(objective)
            raise MetagenError(
                f"learner=amortized needs a model that encodes a support set, such as model=vae; "
                f"{type(objective.model).__name__} does not: use learner=maml"
            )

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return the context that the encoder wrote."""
        return State(objective.call("encode", params, support), {})

    def seen(self, support: Shots) -> Shots:
        """Return all of the support, or as many of its images as it is this step's turn."""
        if not self.any_shots:
            return support
        shots = support.y.shape[-1]
        count = int(rng.uniform(rng.key(self.now, shots), (1,)) * (shots + 1))
        return support._replace(x=support.x[:, :count], y=support.y[:, :count])
