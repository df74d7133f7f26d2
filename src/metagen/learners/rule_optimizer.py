"""A rule, learned or made by hand, as an optimizer of torch for any network."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from metagen.core.episode import Params
from metagen.learners.rules import Rule
from metagen.ranges import NonNegativeFloat, checked

ONE = "p"
"""The name under which the rule sees a tensor: each by itself."""
BETWEEN = "/"
"""Stands between a slot's name and its entry's in a parameter's state."""


class RuleOptimizer(torch.optim.Optimizer):
    r"""phi <- phi + lr (rule(phi, g) - phi), tensor by tensor, in the place of ``torch.optim.Adam``.

    The rule was meta-trained on one model and reads nothing of it: it trains networks that it never saw.
    What it remembers of each tensor (momenta, the state of an LSTM, the number of steps) is the state of the
    optimizer and so part of its ``state_dict``; the rule's own weights are not. A tensor without a gradient
    stays as it is, as in all of torch's optimizers.

    Args:
        params: tensors, or groups of them as dicts, as for any optimizer of torch.
        rule: the update rule; it is not trained any further.
        lr: a factor of every step, which schedulers may change; 1 is the rule as it was learned.

    Raises:
        MetagenError: the rule learned numbers for the layers of one model, or ``lr`` is negative.

    >>> from metagen.learners.rules import Sgd
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(net.weight)
    >>> optimizer = RuleOptimizer(net.parameters(), Sgd(rate=0.25))
    >>> net(torch.ones(1, 1)).sum().backward()
    >>> _ = optimizer.step()
    >>> net.weight.item()
    0.75
    """

    @checked
    def __init__(self, params: ParamsT, rule: Rule, lr: NonNegativeFloat = 1.0) -> None:
        rule.check_any_net()
        self.rule = rule
        super().__init__(params, {"lr": lr})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step with every tensor that has a gradient.

        Args:
            closure: evaluates the loss anew, with its gradients, and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, float(group["lr"]))
        return loss

    def _move(self, p: Tensor, grad: Tensor, lr: float) -> None:
        state, params = self.state[p], {ONE: p}
        if not state:
            state |= {"step": 0, **_flat(self.rule.init(params))}
        moved, slots = self.rule.update(params, {ONE: grad}, _nested(state), state["step"])
        state |= {"step": state["step"] + 1, **_flat(slots)}
        # At 1 the step is the rule's to the last bit.
        p.copy_(moved[ONE] if lr == 1 else torch.lerp(p, moved[ONE], lr))


def _flat(slots: dict[str, Params]) -> dict[str, Any]:
    return {f"{slot}{BETWEEN}{name}": x for slot, entries in slots.items() for name, x in entries.items()}


def _nested(state: dict[str, Any]) -> dict[str, Params]:
    slots: dict[str, Params] = {}
    for key, value in state.items():
        if key != "step":
            slot, _, name = key.rpartition(BETWEEN)
            slots.setdefault(slot, {})[name] = value
    return slots
