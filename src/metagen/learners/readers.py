"""Starts that read the support images: an encoder, prototypes, a memory."""

from collections.abc import Sequence

from torch import nn

from metagen.core.episode import Params, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.learners.starts import Start


class Encoder(Start):
    r"""phi_0 = (theta, c) with c = encode(support): amortised adaptation, one forward pass.

    .. math:: \min_\theta \sum_t L(\theta, \text{encode}_\theta(\text{support}_t); \text{query}_t)

    Edwards and Storkey, *Towards a Neural Statistician*, ICLR 2017; Garnelo et al., *Conditional
    Neural Processes*, ICML 2018.

    Args:
        any_shots: every training step reads another number of the K support images, from 0 to K, all of
            them as often; without any, c is the model's own row, which so learns to be the prior.
    """

    reads, learned = True, True

    def __init__(self, any_shots: bool = False) -> None:
        super().__init__()
        self._any_shots = any_shots

    @property
    def any_shots(self) -> bool:
        """Whether training steps see another number of images each."""
        return self._any_shots

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Check that the model can read a support set."""
        if not objective.model.encoder:
            raise MetagenError(
                f"learner=amortized needs a model that encodes a support set, such as model=vae; "
                f"{type(objective.model).__name__} does not: use learner=maml"
            )

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return the context that the encoder wrote."""
        return objective.call("encode", params, support)

    def seen(self, support: Shots, now: int) -> Shots:
        """Return all of the support, or as many of its images as it is this step's turn."""
        if not self.any_shots:
            return support
        shots = support.y.shape[-1]
        count = int(rng.uniform(rng.key(now, shots), (1,)) * (shots + 1))
        return support._replace(x=support.x[:, :count], y=support.y[:, :count])


class Prototypes(Start):
    r"""The readout that classifies by the nearest mean of a class in feature space.

    .. math:: p(y = n \mid x) \propto \exp(-\|f_\theta(x) - c_n\|^2), \quad
              c_n = \frac{1}{K} \sum_k f_\theta(x_{nk})

    Less a term that all classes share this is the linear classifier with weights 2 c_n and biases
    -||c_n||^2: any number of ways fits. Snell et al., *Prototypical Networks for Few-shot Learning*,
    NeurIPS 2017; with steps after it Triantafillou et al., *Meta-Dataset*, ICLR 2020 (Proto-MAML).
    """

    reads = True

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Check that the model has features and a linear readout."""
        if not isinstance(getattr(objective.model, "readout", None), nn.Linear):
            raise MetagenError(
                f"prototypes need a classifier with features, such as model=conv4; for "
                f"{type(objective.model).__name__} use learner=amortized"
            )

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return the readout that the means of the classes are."""
        features = objective.call("features", params, support.x.flatten(0, 1))
        means = features.unflatten(0, support.y.shape).mean(1)
        return {"readout.weight": 2 * means, "readout.bias": -means.square().sum(-1)}


class Memory(Start):
    """phi = (theta, M) with M the support images themselves: no summary of them (in-context learning).

    For a model that reads the support images, or varies them, before it writes; see
    :class:`metagen.learners.meta_losses.Sequence`.
    """

    reads, learned, sees_all = True, True, True

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Check that the model holds images of its class in a buffer ``memory``."""
        if not hasattr(objective.model, "memory"):
            raise MetagenError(
                f"learner=in_context needs a model that holds the support images: use "
                f"model=pixel_transformer; for {type(objective.model).__name__} use learner=maml"
            )

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return the tables, and the support images as the model's memory."""
        tables = objective.for_ways(params, support.x.shape[0])
        return {n: tables[n] for n in objective.model.per_class} | {"memory": support.x}
