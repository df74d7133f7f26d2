"""Trade computation for memory: keep what goes into a function, not its graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metagen.functional.vectorize import alone, flatten


def recompute(fn: Callable[..., Any], *trees: Any) -> Any:
    """Return ``fn(*trees)``, and run it a second time when its gradient is asked for.

    Equal in value and gradient to the plain call (Chen et al., *Training Deep Nets with Sublinear
    Memory Cost*, 2016); unlike ``torch.utils.checkpoint`` it works inside ``torch.func.vmap``.

    Args:
        fn: a pure function of trees (dicts and tuples of tensors) that returns a tree.
        trees: all tensors on which the result depends; others that ``fn`` closes over get no gradient.
    """
    leaves, rebuild = flatten(trees)
    shape: list[tuple[Callable[..., Any], list[int | None]]] = []

    def flat(*leaves: Tensor) -> tuple[Tensor, ...]:
        out, back = flatten(fn(*rebuild(leaves)))
        # What is handed on as it came goes around: under vmap each task would get the gradient of all.
        came = [next((i for i, x in enumerate(leaves) if y is x), None) for y in out]
        shape[:] = [(back, came)]
        return tuple(y for y, i in zip(out, came, strict=True) if i is None)

    made = iter(_Recompute.apply(flat, *leaves))
    back, came = shape[0]
    return back([next(made) if i is None else leaves[i] for i in came])


class _Recompute(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(flat: Callable[..., Any], *leaves: Tensor) -> tuple[Tensor, ...]:
        return flat(*leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.flat, *leaves = inputs
        ctx.save_for_backward(*leaves)
        ctx.moving = [i for i, x in enumerate(leaves) if x.is_floating_point()]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        leaves = list(ctx.saved_tensors)

        def of_moving(*moving: Tensor) -> tuple[Tensor, ...]:
            for i, value in zip(ctx.moving, moving, strict=True):
                leaves[i] = value
            return ctx.flat(*leaves)

        pull = torch.func.vjp(alone(of_moving), *(leaves[i] for i in ctx.moving))[1]
        back: list[Tensor | None] = [None] * len(leaves)
        for i, grad in zip(ctx.moving, pull(grads), strict=True):
            back[i] = grad
        return None, *back
