"""The meta-gradient through the unrolled steps: in full, of first order, truncated, recomputed."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metagen.core.episode import Params, Shots
from metagen.core.learner import State
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.recompute import recompute
from metagen.functional.vectorize import tree_map
from metagen.learners.parts import Composition, Gradient
from metagen.learners.schedules import Schedule, at
from metagen.ranges import PositiveInt, checked


class Unrolled(Gradient):
    """Backpropagation through the steps.

    Args:
        first_order: treat the inner gradients as constants (FOMAML: Finn et al., ICML 2017); or a
            schedule, 1 for first and 0 for second order.
        truncation: steps between two cuts of the graph, whose segments' gradients are added (truncated
            backpropagation through time; Werbos, 1990); ``None`` never cuts.
        checkpoint_steps: recompute the graph of every so many steps in the backward pass instead of
            keeping it: memory for steps / checkpoint_steps states and checkpoint_steps graphs, for one
            more forward pass. ``None`` keeps everything.
    """

    @checked
    def __init__(
        self,
        first_order: bool | Schedule = False,
        truncation: PositiveInt | None = None,
        checkpoint_steps: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.first_order, self.truncation, self.checkpoint_steps = first_order, truncation, checkpoint_steps

        whole = truncation is None and checkpoint_steps is None
        self.default, self.constant = whole and first_order is False, whole and first_order is True

    def check(self, learner: Composition) -> None:
        """Check that a cut parts nothing from all losses.

        Raises:
            MetagenError: the loss comes after the cuts, and the start and early steps before them.
        """
        if self.truncation is None or not learner.criterion.unrolls or learner.criterion.every_step:
            return
        raise MetagenError(
            f"learner.gradient.truncation={self.truncation}: a loss at the end reaches only what comes after "
            "the last cut: use learner/meta_loss=multi_step with learner.meta_loss.early=1, or "
            "truncation=null"
        )

    def first_order_at(self, now: int | None) -> bool:
        """Return whether the gradients of the steps are constants at meta-training step ``now``."""
        return bool(at(self.first_order, now))

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
        """Return the state after ``steps``, segment by segment."""
        if (self.truncation is None and self.checkpoint_steps is None) or not torch.is_grad_enabled():
            return learner.walk(objective, params, state, support, steps, now)
        walker, own = _Walker(learner), dict(learner.named_parameters())
        for segment in self._segments(steps):
            if self.truncation is not None and segment.start and segment.start % self.truncation == 0:
                state = tree_map(Tensor.detach, state)

            def walk(
                own: Params, params: Params, state: State, support: Shots, steps: range = segment
            ) -> State:
                swapped = {f"learner.{n}": p for n, p in own.items()}
                return functional_call(walker, swapped, (objective, params, state, support, steps, now))

            state = self.kept(walk, own, params, state, support)
        return state

    def _segments(self, steps: range) -> Iterator[range]:
        """Yield the ranges between which the graph is cut, or what is recomputed begins."""
        first = steps.start
        while first < steps.stop:
            last = min(first + (self.checkpoint_steps or len(steps)), steps.stop)
            if self.truncation is not None:
                last = min(last, (first // self.truncation + 1) * self.truncation)
            yield range(first, last)
            first = last

    def kept(self, fn: Callable[..., Any], *trees: Any) -> Any:
        """Return ``fn(*trees)``; its graph is kept, or recomputed as that of the steps."""
        recomputed = self.checkpoint_steps is not None and torch.is_grad_enabled()
        return recompute(fn, *trees) if recomputed else fn(*trees)


class _Walker(nn.Module):
    """Lets ``functional_call`` reach a learner's steps."""

    def __init__(self, learner: Composition) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, *args: Any) -> State:
        return self.learner.walk(*args)
