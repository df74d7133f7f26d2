"""The base of learned update rules: one network for all coordinates, around a hand-made rule."""

from typing import ClassVar

import torch
from torch import Tensor

from metagen.core.episode import Params
from metagen.learners.rules import Rule

ALL = "all"
"""The name under which a memory of all coordinates, one matrix, stands in a slot."""

BASE = "base."
"""Begins the names of the slots that belong to the hand-made rule."""


class LearnedRule(Rule):
    r"""phi_{i+1} = phi_i + f_w(u_i, g_i, ...), with u_i the step of a hand-made rule.

    The same network f_w serves every coordinate of every tensor (Andrychowicz et al., *Learning to
    learn by gradient descent by gradient descent*, NeurIPS 2016), so all M coordinates are read as
    the columns of one matrix. f_w starts as the identity in u_i: untrained, the rule **is** ``base``.

    Args:
        base: the rule that the network corrects; brings the step size.
    """

    remembers: ClassVar[tuple[str, ...]] = ()
    """Names of the slots that are the network's own."""

    learned = True
    lowers = "none"  # it reads the numbers of single coordinates

    def __init__(self, base: Rule) -> None:
        super().__init__(base.rate)
        self.base = base

    def bind(self, params: Params) -> None:
        """Create what ``base`` learns."""
        self.base.bind(params)

    def check_any_net(self) -> None:
        """Check that ``base`` can train any network; one network serves every coordinate."""
        self.base.check_any_net()

    def init(self, params: Params) -> dict[str, Params]:
        """Return the slots of ``base`` and an empty memory."""
        memory = self.memory(join(params))
        base = {BASE + name: slot for name, slot in self.base.init(params).items()}
        return {**base, **{name: {ALL: memory[name]} for name in self.remembers}}

    def memory(self, coordinates: Tensor) -> Params:
        """Return the network's memory before the first step, each (., M), for coordinates (M,)."""
        return {}

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return phi + f_w(u, g, ...) and the new slots."""
        own = {name: slots[name][ALL] for name in self.remembers}
        base = {name.removeprefix(BASE): slot for name, slot in slots.items() if name.startswith(BASE)}
        moved, base = self.base.update(params, grads, base, index)
        step = join({n: moved[n] - params[n] for n in params})
        step, own = self.correct(step, params, grads, own, index)
        steps = split(step, params)
        kept = {BASE + name: slot for name, slot in base.items()}
        return {n: params[n] + steps[n] for n in params}, {**kept, **{n: {ALL: m} for n, m in own.items()}}

    def correct(
        self, step: Tensor, params: Params, grads: Params, memory: Params, index: int
    ) -> tuple[Tensor, Params]:
        """Return f_w and the new memory, given the step u (M,) of ``base``."""
        raise NotImplementedError


def join(params: Params) -> Tensor:
    """Return all coordinates in one row, (M,)."""
    return torch.cat([p.flatten() for p in params.values()])


def split(coordinates: Tensor, like: Params) -> Params:
    """Return the tensors of one row (M,), with the names and shapes of ``like``."""
    parts = coordinates.split([p.numel() for p in like.values()])
    return {n: part.reshape(like[n].shape) for n, part in zip(like, parts, strict=True)}
