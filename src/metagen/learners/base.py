"""What every learner is: a way from a model's parameters and a few images to adapted parameters."""

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from metagen.episode import Episode, Params, Shots
from metagen.errors import MetagenError
from metagen.objective import Objective


class State(NamedTuple):
    """Where an adaptation stands.

    params: the parameters phi_i after i steps that may differ from theta; the rest are shared by all
        tasks, which is what makes a batch of tasks cheap.
    slots:  what the inner optimizer remembers, by name and parameter (momenta), or empty.
    """

    params: Params
    slots: dict[str, Params]


class Learner(nn.Module):
    """Adaptation phi = U(theta; support), in steps, and the loss by which theta is meta-trained.

    A subclass writes :meth:`begin` and :meth:`step`; training, validation, test and ``generate``
    all adapt through them. All methods are pure functions of their arguments and of the learner's
    own parameters (learned rates, tables), for **one** task: :mod:`metagen.vectorize` makes the batch.

    Args:
        steps: adaptation steps in meta-training.
        test_steps: adaptation steps in validation and test, at least 0; ``None`` means ``steps``.
    """

    meta_trained: ClassVar[bool] = True
    """False for a control that adapts from the model's initialisation."""
    few_shot: ClassVar[bool] = True
    """False for plain training, which has no support set."""
    surrogate: ClassVar[bool] = False
    """True where only the gradient of the meta-loss has a meaning, not its value."""

    def __init__(self, steps: int = 0, test_steps: int | None = None) -> None:
        super().__init__()
        self.steps = steps
        self.test_steps = steps if test_steps is None else test_steps
        for name, value in (("steps", self.steps), ("test_steps", self.test_steps)):
            if value < 0:
                raise MetagenError(f"learner.{name}={value}: expected a number of steps, 0 or more")

    def bind(self, objective: Objective, classes: int) -> None:
        """Check that the learner fits the model and create its own meta-parameters.

        Args:
            objective: the model's.
            classes: number of (pseudo-)classes in meta-training, to which ``Episode.classes`` points.

        Raises:
            MetagenError: the learner makes no sense with this model; names what would fit.
        """

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return the state before the first step, phi_0."""
        tables = objective.for_ways(params, support.x.shape[0])
        return State({n: tables[n] for n in objective.model.per_class}, {})

    def step(self, objective: Objective, params: Params, state: State, support: Shots, index: int) -> State:
        """Return the state after step ``index`` (from 0). A learner without steps stays."""
        return state

    def adapt(self, objective: Objective, params: Params, support: Shots, steps: int | None = None) -> Params:
        """Return phi, all of it, after ``steps`` steps (``None``: as many as in meta-training)."""
        state = self.begin(objective, params, support)
        for index in range(self.steps if steps is None else steps):
            state = self.step(objective, params, state, support, index)
        return {**params, **state.params}

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return L(U(theta; support); query), the loss of one task, a scalar."""
        return objective.loss(self.adapt(objective, params, episode.support), episode.query)
