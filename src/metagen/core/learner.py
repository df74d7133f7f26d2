"""The contract of a learner: a way from parameters and a few images to adapted parameters."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metagen.core.episode import Episode, Params, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.autocast import Lowered
from metagen.functional.recompute import recompute


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
    own parameters (learned rates, tables), for **one** task:
    :mod:`metagen.functional.vectorize` makes the batch.

    Args:
        steps: adaptation steps in meta-training.
        test_steps: adaptation steps in validation and test, at least 0; ``None`` means ``steps``.
        checkpoint_steps: recompute the graph of every so many steps in the backward pass instead of
            keeping it: memory for steps / checkpoint_steps states and checkpoint_steps graphs, for one
            more forward pass. ``None`` keeps everything.
    """

    meta_trained: ClassVar[bool] = True
    """False for a control that adapts from the model's initialisation."""
    few_shot: ClassVar[bool] = True
    """False for plain training, which has no support set."""
    surrogate: ClassVar[bool] = False
    """True where only the gradient of the meta-loss has a meaning, not its value."""

    lowers: ClassVar[Lowered] = "query"
    """What mixed precision may lower without spoiling the meta-gradient; see :class:`Lowered`."""

    def __init__(
        self, steps: int = 0, test_steps: int | None = None, checkpoint_steps: int | None = None
    ) -> None:
        super().__init__()
        self.steps = steps
        self.test_steps = steps if test_steps is None else test_steps
        self.checkpoint_steps = checkpoint_steps
        if checkpoint_steps is not None and checkpoint_steps < 1:
            raise MetagenError(f"learner.checkpoint_steps={checkpoint_steps}: expected null, or 1 or more")
        for name, value in (("steps", self.steps), ("test_steps", self.test_steps)):
            if value < 0:
                raise MetagenError(f"learner.{name}={value}: expected a number of steps, 0 or more")

    def set_step(self, step: int) -> None:
        """Hear the number of the meta-training step that follows, for what is annealed over them."""

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

    @staticmethod
    def refuse_memory(objective: Objective) -> None:
        """Refuse a model that needs the support images themselves: for learners that do not give them."""
        if getattr(objective.model, "needs_memory", False):
            raise MetagenError(
                f"{type(objective.model).__name__} varies the support images, which this learner does not "
                f"hand over: use learner=in_context"
            )

    def prior(self, objective: Objective, params: Params, ways: int) -> Params:
        """Return phi where nothing was seen: theta, with one row per class in the per-class tables."""
        return objective.for_ways(params, ways)

    def seen(self, support: Shots) -> Shots:
        """Return what the present meta-training step reads of the support: all of it."""
        return support

    def step(self, objective: Objective, params: Params, state: State, support: Shots, index: int) -> State:
        """Return the state after step ``index`` (from 0). A learner without steps stays."""
        return state

    def adapt(self, objective: Objective, params: Params, support: Shots, steps: int | None = None) -> Params:
        """Return phi, all of it, after ``steps`` steps (``None``: as many as in meta-training)."""
        state = self.begin(objective, params, support)
        state = self.advance(objective, params, state, support, 0, self.steps if steps is None else steps)
        return {**params, **state.params}

    def advance(
        self, objective: Objective, params: Params, state: State, support: Shots, start: int, stop: int
    ) -> State:
        """Return the state after the steps ``start`` ... ``stop - 1``."""
        if self.checkpoint_steps is None or not torch.is_grad_enabled():
            for index in range(start, stop):
                state = self.step(objective, params, state, support, index)
            return state
        stepper, own = _Stepper(self), dict(self.named_parameters())
        for first in range(start, stop, self.checkpoint_steps):
            last = min(first + self.checkpoint_steps, stop)

            def segment(
                own: Params, params: Params, state: State, support: Shots, steps: range = range(first, last)
            ) -> State:
                for index in steps:
                    args = (objective, params, state, support, index)
                    state = functional_call(stepper, {f"learner.{n}": p for n, p in own.items()}, args)
                return state

            state = recompute(segment, own, params, state, support)
        return state

    def kept(self, fn: Callable[..., Tensor], *trees: Any) -> Tensor:
        """Return ``fn(*trees)``; its graph is kept or recomputed as that of the steps."""
        recomputed = self.checkpoint_steps is not None and torch.is_grad_enabled()
        return recompute(fn, *trees) if recomputed else fn(*trees)

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return L(U(theta; support); query), the loss of one task, a scalar."""
        support = self.seen(episode.support)
        ways, shots = support.y.shape
        phi = self.adapt(objective, params, support) if shots else self.prior(objective, params, ways)
        return objective.query_loss(phi, episode)


class _Stepper(nn.Module):
    """Lets ``functional_call`` reach a learner's step."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, *args: Any) -> State:
        return self.learner.step(*args)
