"""Learning in context: a model that reads the support images themselves."""

from torch import Tensor

from metagen.core.episode import Episode, Params, Shots
from metagen.core.learner import Learner, State
from metagen.core.objective import Objective
from metagen.errors import MetagenError


class InContext(Learner):
    r"""phi = (theta, M) with M the support images themselves: no gradient steps and no summary of them.

    .. math:: \min_\theta \sum_t \frac{1}{N T} \sum_{n, t} -\log p_\theta(x_{nt} \mid x_{n1}, ..., x_{n,t-1})

    over the T = K + Q images of each class, in the random order in which the episode drew them: a
    training step sees every number of context images from 0 to T - 1 at once, none of which contains
    the target (after Brown et al., *Language models are few-shot learners*, NeurIPS 2020, and Müller et
    al., *Transformers can do Bayesian inference*, ICLR 2022).

    A model that holds images but is no sequence model is trained by its loss on the Q query images, given
    the K support images. One without parameters (``model=warp``) has nothing to be trained.
    """

    lowers = "all"  # it differentiates once

    def __init__(self) -> None:
        super().__init__(steps=0)

    def bind(self, objective: Objective, classes: int) -> None:
        """Check that the model holds images of its class in a buffer ``memory``."""
        if not hasattr(objective.model, "memory"):
            raise MetagenError(
                f"learner=in_context needs a model that holds the support images: use "
                f"model=pixel_transformer; for {type(objective.model).__name__} use learner=maml"
            )
        self.meta_trained = any(True for _ in objective.model.named_parameters())  # type: ignore[misc]
        self.sequences = hasattr(objective.model, "sequence_nll")

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return the support images as the model's memory."""
        state = super().begin(objective, params, support)
        return state._replace(params={**state.params, "memory": support.x})

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return the mean over all images of -log p given those before, or the loss of the query images."""
        if not self.sequences:
            return super().meta_loss(objective, params, episode)
        return objective.call("sequence_nll", params, episode.join().x).mean()
