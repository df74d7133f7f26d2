"""Apply a function of one task to a batch of tasks: the backends ``loop`` and ``vmap``.

Both take ``fn(*args)``, written for one task, and return a function of the same arguments with a
leading T on every tensor of every argument and result. What ``fn`` closes over is shared.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from metagen.errors import MetagenError, nearest

Vectorizer = Callable[[Callable[..., Any]], Callable[..., Any]]


def tree_map(fn: Callable[..., Any], *trees: Any) -> Any:
    """Apply ``fn`` to the corresponding leaves of trees made of dicts and (named) tuples."""
    first = trees[0]
    if isinstance(first, dict):
        return {name: tree_map(fn, *(tree[name] for tree in trees)) for name in first}
    if isinstance(first, tuple):
        parts = [tree_map(fn, *leaves) for leaves in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    return fn(*trees)


def flatten(tree: Any) -> tuple[list[Tensor], Callable[..., Any]]:
    """Return the tensors of a tree in order, and the function that makes the tree of such tensors.

    That function knows the tree's shape alone: it may outlive the tensors without holding them.
    """
    if isinstance(tree, Tensor):
        return [tree], _first
    parts = [flatten(part) for part in (tree.values() if isinstance(tree, dict) else tree)]
    ends = list(accumulate((len(leaves) for leaves, _ in parts), initial=0))
    backs = [back for _, back in parts]
    make = partial(_dict, tuple(tree)) if isinstance(tree, dict) else _maker(type(tree))

    def rebuild(leaves: Any) -> Any:
        return make([back(leaves[a:b]) for back, (a, b) in zip(backs, pairwise(ends), strict=True)])

    return [leaf for leaves, _ in parts for leaf in leaves], rebuild


def _first(leaves: Any) -> Any:
    return leaves[0]


def _dict(names: tuple[str, ...], values: list[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _maker(kind: type) -> Callable[[list[Any]], Any]:
    return (lambda values: kind(*values)) if hasattr(kind, "_fields") else tuple


def tasks_of(tree: Any) -> int:
    """Return the leading size of the first tensor in ``tree``."""
    leaves, _ = flatten(tree)
    assert leaves, "no tensor among the arguments"
    return leaves[0].shape[0]


def parts_of(tree: Any, size: int) -> list[Any]:
    """Return a tree with a leading T in parts of at most ``size`` tasks each, in order."""
    return [tree_map(lambda x, i=i: x[i : i + size], tree) for i in range(0, tasks_of(tree), size)]


def loop(fn: Callable[..., Any]) -> Callable[..., Any]:
    """One task after the other; the reference that the other backends are tested against."""

    def over_tasks(*args: Any) -> Any:
        outs = [
            fn(*(tree_map(lambda leaf, i=i: leaf[i], arg) for arg in args)) for i in range(tasks_of(args))
        ]
        return tree_map(lambda *leaves: torch.stack(leaves), *outs)

    return over_tasks


def vmap(fn: Callable[..., Any]) -> Callable[..., Any]:
    """All tasks in one call of ``torch.func.vmap``.

    Native batch, layer and instance norms have second derivatives that are silently wrong where a transform
    of ``torch.func`` takes them under vmap: take gradients with :func:`gradient`, which leaves it. Fast where
    the model is made of the layers of :mod:`metagen.models.layers`.
    """

    def inside(*args: Any) -> Any:
        with _only_tasks(True):
            return fn(*args)

    return torch.func.vmap(inside, randomness="error")


def quickest(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Use :func:`vmap`, but :func:`loop` for one task alone, where it takes less time and memory."""
    together, by_itself = vmap(fn), loop(fn)

    def over_tasks(*args: Any) -> Any:
        return (by_itself if tasks_of(args) == 1 else together)(*args)

    return over_tasks


_TASKS_ONLY: ContextVar[bool] = ContextVar("tasks_only", default=False)


@contextmanager
def _only_tasks(value: bool) -> Iterator[None]:
    token = _TASKS_ONLY.set(value)
    try:
        yield
    finally:
        _TASKS_ONLY.reset(token)


def alone(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark ``fn`` to run under a transform of its own, such as ``torch.func.vjp``, inside :func:`vmap`."""

    def inside(*args: Any) -> Any:
        with _only_tasks(False):
            return fn(*args)

    return inside


def gradient(loss: Callable[..., Tensor], at: Any, *rest: Any) -> Any:
    """Return the gradient of ``loss(at, *rest)``, a scalar, with respect to the tensors of the tree ``at``.

    It equals ``torch.func.grad(loss)(at, *rest)`` in every respect. Inside :func:`vmap` it leaves the
    transform and differentiates the losses of all tasks in one ordinary backward pass, whose graph
    costs the interpreter several times less. All tensors that differ between tasks must be arguments.
    """
    if not _TASKS_ONLY.get() or torch.is_inference_mode_enabled():
        return torch.func.grad(loss)(at, *rest)
    leaves, rebuild = flatten((at, *rest))
    moving, back = flatten(at)
    grads = _TaskGradients.apply(lambda leaves: loss(*rebuild(leaves)), len(moving), *leaves)
    return back(grads)


class _TaskGradients(torch.autograd.Function):
    """A way out of ``vmap``: its rule sees the tensors of all tasks, under ordinary autograd."""

    @staticmethod
    def forward(loss: Callable[..., Tensor], moving: int, *leaves: Tensor) -> tuple[Tensor, ...]:
        return torch.func.grad(lambda at: loss((*at, *leaves[moving:])))(leaves[:moving])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def vmap(info: Any, in_dims: Any, loss: Callable[..., Tensor], moving: int, *leaves: Tensor) -> Any:
        dims = [None if at is None else 0 for at in in_dims[2:]]
        values = [x if at is None else x.movedim(at, 0) for x, at in zip(leaves, in_dims[2:], strict=True)]
        keep = torch.is_grad_enabled() and any(x.requires_grad for x in values)
        with torch.enable_grad():
            for i in range(moving):
                x = values[i] if dims[i] == 0 else values[i].expand(info.batch_size, *values[i].shape)
                values[i] = x if keep and x.requires_grad else x.detach().requires_grad_()
            dims[:moving] = [0] * moving
            losses = torch.func.vmap(lambda *leaves: loss(leaves), tuple(dims), randomness="error")(*values)
            grads = _gradients(losses.sum(), values[:moving], keep)
        return grads, (0,) * moving


def _gradients(total: Tensor, at: list[Tensor], keep: bool) -> tuple[Tensor, ...]:
    """Return the gradient at each tensor: zeros, as of ``torch.func.grad``, where ``total`` has none."""
    if not total.requires_grad:
        return tuple(map(torch.zeros_like, at))
    return torch.autograd.grad(total, at, create_graph=keep, materialize_grads=True)


BACKENDS: dict[str, Vectorizer] = {"loop": loop, "vmap": vmap}


def backend(name: str) -> Vectorizer:
    """Return the backend called ``name``.

    Raises:
        MetagenError: there is none.
    """
    if name not in BACKENDS:
        raise MetagenError(f"vectorize={name}: expected one of {sorted(BACKENDS)}{nearest(name, BACKENDS)}")
    return BACKENDS[name]
