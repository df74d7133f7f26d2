"""Count the floating-point operations of a computation, without running it twice."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Adds up, by torch's own formulas, the FLOPs of what runs inside of it.

    Counted are matrix products, convolutions and attention kernels, forward and backward, two operations
    for a multiplication and an addition; not element-wise operations, reductions and random numbers.
    It sees through ``functional_call`` and ``torch.func.grad``. Count one task, without ``vmap``: vmap
    makes grouped convolutions of a batch of tasks, and torch's formula for the gradient of a grouped
    convolution is too high (by a quarter for a VAE and two tasks).
    ``torch.utils.flop_counter.FlopCounterMode`` gives the same numbers but also tracks modules, by hooks
    that raise where a loss has a gradient inside, as that of a WGAN-GP.

    Attributes:
        total: FLOPs so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            # In inference mode a composite such as linear arrives whole.
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


def count_flops(fn: Callable[[], Any]) -> tuple[Any, int]:
    """Return ``fn()`` and its FLOPs; see :class:`FlopCounter`."""
    with FlopCounter() as counter:
        out = fn()
    return out, counter.total


def adaptation_flops(learner: Any, objective: Any, params: Any, support: Any) -> tuple[int, int] | None:
    """Return the FLOPs of the learner's start and of one step on one task; None where torch refuses.

    Every step does the same work, so that n steps cost start + n * step.
    """
    try:
        with torch.no_grad():
            state, start = count_flops(lambda: learner.begin(objective, params, support))
            _, step = count_flops(lambda: learner.step(objective, params, state, support, 0))
    except RuntimeError:
        return None
    return start, step
