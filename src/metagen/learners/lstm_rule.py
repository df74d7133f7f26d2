"""The coordinate-wise LSTM optimizer."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from metagen.core.episode import Params
from metagen.learners.learned_rules import LearnedRule, join
from metagen.learners.rules import Rule
from metagen.ranges import PositiveFloat, Width, checked

BLOCK = 2**16
"""Coordinates whose gates exist at a time."""


class LstmRule(LearnedRule):
    r"""A two-layer LSTM reads the gradient of one coordinate and writes a correction of its step.

    .. math:: \phi_{i+1} = \phi_i + u_i + s \, w^\top h_i^{(2)}, \quad h_i = \text{LSTM}(x(g_i), h_{i-1})

    Andrychowicz et al., NeurIPS 2016, whose step is the network's alone; here it is added to that of
    ``base``, and w starts at 0, so that the untrained rule is ``base``. Their input is kept (appendix A):

        x(g) = (log|g| / p, sign g) where |g| >= e^-p, else (-1, e^p g).

    The state of every coordinate is two pairs (h, c) of ``hidden`` numbers: for large networks keep
    it small, or recompute the steps (``learner.gradient.checkpoint_steps=1``).

    Args:
        base: the hand-made rule that is corrected.
        hidden: units of each of the two layers (the paper: 20).
        scale: s, the size of the network's step in units of the parameters.
        p: range of the preprocessing, in powers of e.
    """

    remembers = ("h1", "c1", "h2", "c2")

    @checked
    def __init__(
        self, base: Rule, hidden: Width = 20, scale: PositiveFloat = 0.01, p: PositiveFloat = 10.0
    ) -> None:
        super().__init__(base)
        self.hidden, self.scale, self.p = hidden, scale, p
        self.first, self.second = _cell(2, hidden), _cell(hidden, hidden)
        self.readout = nn.Parameter(torch.zeros(1, hidden))

    def memory(self, coordinates: Tensor) -> Params:
        """Return zero states, (hidden, M) each."""
        return {name: coordinates.new_zeros(self.hidden, len(coordinates)) for name in self.remembers}

    def correct(
        self, step: Tensor, params: Params, grads: Params, memory: Params, index: int
    ) -> tuple[Tensor, Params]:
        """Return u + s w' h and the new states."""
        x = preprocess(join({n: grads[n] for n in params}), self.p)
        h1, c1 = _advance(self.first, x, memory["h1"], memory["c1"])
        h2, c2 = _advance(self.second, h1, memory["h2"], memory["c2"])
        return step + self.scale * (self.readout @ h2)[0], {"h1": h1, "c1": c1, "h2": h2, "c2": c2}


def preprocess(g: Tensor, p: float) -> Tensor:
    """Return the two inputs (2, M) of gradients (M,): their logarithm and their sign, bounded below."""
    small = math.exp(-p)
    size = g.abs()
    # Clamped before the logarithm: the gradient of the branch not taken must be finite, too.
    log = size.clamp(min=small).log() / p
    return torch.stack([log, torch.where(size >= small, g.sign(), g / small)])


def _cell(inputs: int, hidden: int) -> nn.ParameterList:
    """Return the weights of the four gates (4H, inputs), (4H, H) and their biases (4H, 1)."""
    bound = 1 / math.sqrt(hidden)
    shapes = ((4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden, 1))
    return nn.ParameterList([nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for shape in shapes])


def _advance(cell: nn.ParameterList, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return h (H, M) and c (H, M) after the input x (., M).

    Hochreiter and Schmidhuber, *Long Short-Term Memory*, Neural Computation 1997, with the forget
    gate of Gers et al., 2000. Written out: the native one is not differentiable twice everywhere.
    """
    return cast(tuple[Tensor, Tensor], _Cell.apply(*cell, x, h, c))


class _Cell(torch.autograd.Function):
    """One step of a cell, which remembers what it read and works out its gates again for the gradient.

    They are several times as many numbers as the state, of every coordinate of a network: they exist for
    ``BLOCK`` coordinates at a time. The gradient is made of tensor operations and has one itself.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        weight: Tensor, recurrent: Tensor, bias: Tensor, x: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        parts = zip(*(s.split(BLOCK, 1) for s in (x, h, c)), strict=True)
        ends = [_after(*_gates(weight, recurrent, bias, x, h), c) for x, h, c in parts]
        hs, cs = zip(*ends, strict=True)
        return torch.cat(hs, 1), torch.cat(cs, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, ...]:
        weight, recurrent, bias, *read = ctx.saved_tensors
        of_cell, of_read = [], []
        for x, h, c, dh, dc in zip(*(s.split(BLOCK, 1) for s in (*read, *outer)), strict=True):
            enter, forget, write, leave = _gates(weight, recurrent, bias, x, h)
            seen = (forget * c + enter * write).tanh()
            dc = dc + dh * leave * (1 - seen * seen)
            dz = torch.cat(
                [
                    dc * write * enter * (1 - enter),
                    dc * c * forget * (1 - forget),
                    dc * enter * (1 - write * write),
                    dh * seen * leave * (1 - leave),
                ]
            )
            of_cell.append((dz @ x.mT, dz @ h.mT, dz.sum(1, keepdim=True)))
            of_read.append((weight.mT @ dz, recurrent.mT @ dz, dc * forget))
        sums = (torch.stack(parts).sum(0) for parts in zip(*of_cell, strict=True))
        return (*sums, *(torch.cat(parts, 1) for parts in zip(*of_read, strict=True)))


def _gates(weight: Tensor, recurrent: Tensor, bias: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """Return what is let in, kept, written and let out, (H, M) each."""
    enter, forget, write, leave = (weight @ x + recurrent @ h + bias).chunk(4)
    return enter.sigmoid(), forget.sigmoid(), write.tanh(), leave.sigmoid()


def _after(enter: Tensor, forget: Tensor, write: Tensor, leave: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    c = forget * c + enter * write
    return leave * c.tanh(), c
