"""Apply a function of one task to a batch of tasks: the backends ``loop`` and ``vmap``.

Both take ``fn(*args)``, written for one task, and return a function of the same arguments with a
leading T on every tensor of every argument and result. What ``fn`` closes over is shared.
"""

from collections.abc import Callable
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
    """Return the tensors of a tree in order, and the function that makes the tree of such tensors."""
    if isinstance(tree, Tensor):
        return [tree], lambda leaves: leaves[0]
    parts = [flatten(part) for part in (tree.values() if isinstance(tree, dict) else tree)]
    ends = list(accumulate((len(leaves) for leaves, _ in parts), initial=0))

    def rebuild(leaves: Any) -> Any:
        values = [
            back(leaves[start:stop]) for (_, back), (start, stop) in zip(parts, pairwise(ends), strict=True)
        ]
        if isinstance(tree, dict):
            return dict(zip(tree, values, strict=True))
        return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)

    return [leaf for leaves, _ in parts for leaf in leaves], rebuild


def _tasks(tree: Any) -> int | None:
    """Return the leading size of the first tensor in ``tree``."""
    if isinstance(tree, Tensor):
        return tree.shape[0]
    leaves = tree.values() if isinstance(tree, dict) else tree
    return next((n for n in map(_tasks, leaves) if n is not None), None)


def loop(fn: Callable[..., Any]) -> Callable[..., Any]:
    """One task after the other; the reference that the other backends are tested against."""

    def over_tasks(*args: Any) -> Any:
        count = _tasks(args)
        assert count is not None, "no tensor among the arguments"
        outs = [fn(*(tree_map(lambda leaf, i=i: leaf[i], arg) for arg in args)) for i in range(count)]
        return tree_map(lambda *leaves: torch.stack(leaves), *outs)

    return over_tasks


def vmap(fn: Callable[..., Any]) -> Callable[..., Any]:
    """All tasks in one call of ``torch.func.vmap``.

    Exact as long as the model has no native batch, layer or instance norm: their second
    derivatives are silently wrong under vmap.
    """
    return torch.func.vmap(fn, randomness="error")


BACKENDS: dict[str, Vectorizer] = {"loop": loop, "vmap": vmap}


def backend(name: str) -> Vectorizer:
    """Return the backend called ``name``.

    Raises:
        MetagenError: there is none.
    """
    if name not in BACKENDS:
        raise MetagenError(f"vectorize={name}: expected one of {sorted(BACKENDS)}{nearest(name, BACKENDS)}")
    return BACKENDS[name]
