"""The parts of a learner, and what each may ask of the others.

A :class:`~metagen.learners.meta_learner.MetaLearner` is composed of five parts, each of which can be
exchanged by itself:

- a **start** phi_0 (:mod:`~metagen.learners.starts`, :mod:`~metagen.learners.readers`,
  :mod:`~metagen.learners.hypernet`);
- a **rule** phi_{i+1} = phi_i + u(g_i) (:mod:`~metagen.learners.rules` and its neighbours), and what it
  moves (:mod:`~metagen.learners.adapts`, :mod:`~metagen.learners.low_rank_adapters`);
- a **gradient**: how the meta-gradient passes the steps (:mod:`~metagen.learners.gradients`,
  :mod:`~metagen.learners.implicit`);
- a **meta-loss** of the adaptation (:mod:`~metagen.learners.meta_losses`);
- **schedules** of its numbers (:mod:`~metagen.learners.schedules`).

Parts that make no sense together are refused where the learner is made, by :meth:`Gradient.check` and
:meth:`MetaLoss.check`.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from metagen.core.episode import Episode, Params, Shots
from metagen.core.learner import Learner, State
from metagen.core.objective import Objective
from metagen.functional.autocast import Lowered
from metagen.functional.vectorize import gradient
from metagen.learners.adapts import Adapts
from metagen.learners.rules import Rule
from metagen.learners.schedules import Schedule
from metagen.learners.starts import Start


class Composition(Learner):
    """A learner as its parts see it.

    Attributes:
        batch: support images of a class that a step sees, or ``None`` for all.
    """

    start: Start
    rule: Rule | None
    adapts: Adapts
    gradient: "Gradient"
    criterion: "MetaLoss"
    batch: int | None
    schedule: Schedule | None

    @property
    def takes_none(self) -> bool:
        """Whether meta-training never takes an inner step."""
        return self.schedule is None and self.steps == 0

    def walk(
        self,
        objective: Objective,
        params: Params,
        state: State,
        support: Shots,
        steps: range,
        now: int | None,
    ) -> State:
        """Return the state after ``steps``, whatever the gradient."""
        return super().advance(objective, params, state, support, steps, now)

    def shots_at(self, support: Shots, index: int) -> Shots:
        """Return the images that step ``index`` sees, with that step's noise."""
        shots = support.at(index)
        return shots if self.batch is None else shots.minibatch(self.batch)


class Gradient(nn.Module):
    """How the gradient of the meta-loss passes the inner steps (what diffrax calls the adjoint)."""

    surrogate: ClassVar[bool] = False
    lowers: ClassVar[Lowered] = "all"
    default: bool = False
    """Whether it is the plain one, of which a learner that differentiates no steps loses nothing."""
    constant: bool = False
    """Whether it takes the steps' gradients as constants, and nothing else."""

    def check(self, learner: Composition) -> None:
        """Check that the other parts go with this one.

        Raises:
            MetagenError: they do not; names what would.
        """

    def bind(self, objective: Objective, learner: Composition) -> None:
        """Check that the model goes with this part."""

    def first_order_at(self, now: int | None) -> bool:
        """Return whether the gradients of the steps are constants at meta-training step ``now``."""
        return True

    def slots(self, z: Params) -> dict[str, Params]:
        """Return what the state must remember of the start z_0."""
        return {}

    def of_support(
        self,
        learner: Composition,
        objective: Objective,
        z: Params,
        phi: Params,
        shots: Shots,
        state: State,
        now: int | None,
    ) -> Params:
        """Return grad L(write(z, phi); shots) with respect to z, for the rule."""
        if self.first_order_at(now):
            # Cut the graph before the gradient is taken, not after: then no second-order graph is built.
            phi = {n: p.detach() for n, p in phi.items()}
            z = {n: p.detach() for n, p in z.items()}

        def loss(z: Params, phi: Params, shots: Shots) -> Tensor:
            return objective.loss({**phi, **learner.adapts.write(z, phi)}, shots)

        return gradient(loss, z, phi, shots)

    def advance(
        self,
        learner: Composition,
        objective: Objective,
        params: Params,
        state: State,
        support: Shots,
        steps: range,
        now: int | None,
    ) -> State:
        """Return the state after ``steps``."""
        return learner.walk(objective, params, state, support, steps, now)

    def kept(self, fn: Callable[..., Tensor], *trees: Any) -> Tensor:
        """Return ``fn(*trees)``; its graph is kept or recomputed as that of the steps."""
        return fn(*trees)

    def query_loss(
        self,
        learner: Composition,
        objective: Objective,
        params: Params,
        support: Shots,
        episode: Episode,
        now: int,
    ) -> Tensor:
        """Return the query loss after all steps, with its gradient."""
        return objective.query_loss(learner.adapt(objective, params, support, now=now), episode)


class MetaLoss(nn.Module):
    """The loss of one task by which theta and all that is learned beside it are meta-trained.

    Attributes:
        meta_trained: False where nothing is.
        surrogate: whether only its gradient has a meaning, not its value.
        unrolls: whether it differentiates the inner steps.
        at_the_end: whether it reads only the parameters after the last step.
        moves_start: whether it trains the start without that.
        lowers: what mixed precision may lower.
    """

    meta_trained: ClassVar[bool] = True
    surrogate: ClassVar[bool] = False
    unrolls: ClassVar[bool] = True
    moves_start: ClassVar[bool] = False
    at_the_end: ClassVar[bool] = False
    lowers: Lowered = "query"

    @property
    def every_step(self) -> bool:
        """Whether every step has its loss throughout meta-training."""
        return False

    def check(self, learner: Composition) -> None:
        """Check that the other parts go with this one.

        Raises:
            MetagenError: they do not; names what would.
        """

    def bind(self, objective: Objective, learner: Composition) -> None:
        """Check that the other parts, which know the model, go with this one."""

    def forward(
        self, learner: Composition, objective: Objective, params: Params, episode: Episode, now: int
    ) -> Tensor:
        """Return the loss of one task at meta-training step ``now``, a scalar."""
        raise NotImplementedError
