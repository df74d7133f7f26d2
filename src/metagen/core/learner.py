"""The contract of a learner: a way from parameters and a few images to adapted parameters."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metagen.core.episode import Episode, Params, Shots
from metagen.core.objective import Objective
from metagen.functional.autocast import Lowered
from metagen.ranges import AdaptationSteps, checked


class State(NamedTuple):
    """Where an adaptation stands.

    params: the parameters phi_i after i steps that may differ from theta; the rest are shared by all
        tasks, which is what makes a batch of tasks cheap.
    slots:  what else the steps remember, by name and parameter (such as momenta), or empty.
    """

    params: Params
    slots: dict[str, Params]


def one_task(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fn``, which is called with one task."""
    return fn


class Learner(nn.Module):
    """Adaptation phi = U(theta; support), in steps, and the loss by which theta is meta-trained.

    Every adaptation, in training, validation, test, ``generate`` and on the page, is one walk along
    :meth:`path`. All methods are pure functions of their arguments and of the learner's own parameters
    (learned rates, tables), for **one** task: :mod:`metagen.functional.vectorize` makes the batch.

    The stage is an argument, too: ``now`` is the number of the meta-training step, from 0, on which
    annealed settings depend, or ``None`` in validation, in test and after.

    :class:`metagen.learners.meta_learner.MetaLearner` composes a learner of parts and is what almost every
    learner should be. A subclass of its own writes :meth:`begin` and :meth:`step`.

    Args:
        steps: adaptation steps in meta-training.
        test_steps: adaptation steps in validation and test, at least 0; ``None`` means ``steps``.

    Attributes:
        meta_trained: False for a control that adapts from the model's initialisation.
        few_shot: False for plain training, which has no support set.
        surrogate: True where only the gradient of the meta-loss has a meaning, not its value.
        lowers: what mixed precision may lower without spoiling the meta-gradient, see
            :data:`metagen.functional.autocast.Lowered`.
    """

    meta_trained: bool = True
    few_shot: bool = True
    surrogate: bool = False
    lowers: Lowered = "query"

    @checked
    def __init__(self, steps: AdaptationSteps = 0, test_steps: AdaptationSteps | None = None) -> None:
        super().__init__()
        self.steps = steps
        self.test_steps = steps if test_steps is None else test_steps

    @property
    def takes_steps(self) -> bool:
        """Whether the learner does anything after it has read the images."""
        return type(self).step is not Learner.step

    def describe(self) -> str:
        """Return in a few words what the learner is, for messages."""
        return type(self).__name__

    def steps_at(self, now: int | None) -> int:
        """Return the number of adaptation steps at meta-training step ``now``, or in the test."""
        return self.test_steps if now is None else self.steps

    def steps_kept(self, now: int | None) -> int:
        """Return for how many adaptation steps the graph of the meta-loss remembers the state."""
        return self.steps_at(now)

    def bind(self, objective: Objective, classes: int) -> None:
        """Check that the learner fits the model and create its own meta-parameters.

        Args:
            objective: the model's.
            classes: number of (pseudo-)classes in meta-training, to which ``Episode.classes`` points.

        Raises:
            MetagenError: the learner makes no sense with this model; names what would fit.
        """

    def begin(self, objective: Objective, params: Params, support: Shots, now: int | None = None) -> State:
        """Return the state before the first step, phi_0: theta, with one row per class in its tables."""
        tables = objective.for_ways(params, support.x.shape[0])
        return State({n: tables[n] for n in objective.model.per_class}, {})

    def step(
        self,
        objective: Objective,
        params: Params,
        state: State,
        support: Shots,
        index: int,
        now: int | None = None,
    ) -> State:
        """Return the state after step ``index`` (from 0). A learner without steps stays."""
        return state

    def prior(self, objective: Objective, params: Params, ways: int) -> Params:
        """Return phi where nothing was seen: theta, with one row per class in the per-class tables."""
        return objective.for_ways(params, ways)

    def seen(self, support: Shots, now: int | None) -> Shots:
        """Return what is read of the support: all of it."""
        return support

    def advance(
        self,
        objective: Objective,
        params: Params,
        state: State,
        support: Shots,
        steps: range,
        now: int | None,
    ) -> State:
        """Return the state after those ``steps``: the loop that every adaptation goes through."""
        for index in steps:
            state = self.step(objective, params, state, support, index, now)
        return state

    def path(
        self,
        objective: Objective,
        params: Params,
        support: Shots,
        stops: Sequence[int],
        now: int | None = None,
        over: Callable[..., Any] = one_task,
    ) -> Iterator[State]:
        """Yield the state after each number of steps in ``stops``, which ascend from 0 or more.

        Args:
            objective: the model's.
            params: theta.
            support: of one task, or of as many as ``over`` goes over.
            stops: numbers of steps.
            now: the meta-training step, or ``None``.
            over: backend over tasks, see :mod:`metagen.functional.vectorize`.
        """
        state = over(lambda support: self.begin(objective, params, support, now))(support)
        done = 0
        for stop in stops:
            # One by one where no graph needs them together: then no state outlives its turn.
            for steps in _parts(range(done, stop), len(range(done, stop)) if torch.is_grad_enabled() else 1):

                def advance(state: State, support: Shots, steps: range = steps) -> State:
                    return self.advance(objective, params, state, support, steps, now)

                state = over(advance)(state, support)
            done = max(done, stop)
            yield state

    def adapt(
        self,
        objective: Objective,
        params: Params,
        support: Shots,
        steps: int | None = None,
        now: int | None = None,
    ) -> Params:
        """Return phi, all of it, after ``steps`` steps (``None``: as many as the stage says)."""
        steps = self.steps_at(now) if steps is None else steps
        (state,) = self.path(objective, params, support, [steps], now)
        return {**params, **state.params}

    def meta_loss(self, objective: Objective, params: Params, episode: Episode, now: int = 0) -> Tensor:
        """Return L(U(theta; support); query), the loss of one task, a scalar."""
        return objective.query_loss(self.adapt(objective, params, episode.support, now=now), episode)


def _parts(steps: range, size: int) -> Iterator[range]:
    """Yield ``steps`` in parts of ``size``."""
    for first in range(steps.start, steps.stop, max(size, 1)):
        yield range(first, min(first + size, steps.stop))
