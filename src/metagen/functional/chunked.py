"""A mean over many tasks, some tasks at a time and several times at once, with its gradient.

The graph of all tasks of a batch need not exist at the same time: each chunk of tasks gives its part
of the loss and of the gradient and is forgotten. On a CPU, chunks in threads of their own keep all
cores busy where a single operation on a small image cannot.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from metagen.errors import MetagenError
from metagen.functional.vectorize import parts_of, tasks_of

LARGEST = 16
"""Tasks of a chunk on a CPU at most: fewer do not hide the interpreter."""
WIDEST = 2**27
"""Bytes of the largest tensor of a chunk on a CPU, at most: more fall out of its caches."""
NARROW = 5 * 2**22
"""Bytes of the largest tensor of a whole batch on a CPU, up to which a step waits for the interpreter."""
MOST = 2**31
"""Bytes that the chunks of all workers on a CPU remember for their gradients, at most."""

M = TypeVar("M", bound=nn.Module)


class Plan(NamedTuple):
    """The order in which a batch of tasks is computed.

    chunk:   tasks in one call.
    workers: calls at the same time, each with one thread of torch's; 1 uses the calling thread as it is.
    """

    chunk: int
    workers: int


def plan(
    tasks: int,
    device: torch.device,
    chunk: int | None = None,
    workers: int | None = None,
    width: Callable[[], int] | None = None,
    kept: Callable[[], int] | None = None,
) -> Plan:
    """Return a plan for ``tasks`` tasks; what is not ``None`` is kept.

    On an accelerator all tasks go at once. On a CPU there is a worker for every thread of torch's that
    finds work, and a chunk has at most ``LARGEST`` tasks and ``WIDEST`` bytes in a tensor; but a batch of at
    most ``NARROW`` bytes goes at once, too, since threads would take turns at the interpreter. ``width``
    tells the bytes of the largest tensor of one task, ``kept`` those of all that a task remembers, where they
    matter: chunks that would remember more than ``MOST`` together are smaller.

    Raises:
        MetagenError: a size below 1, or several workers on an accelerator.
    """
    for name, value in (("chunk", chunk), ("workers", workers)):
        if value is not None and value < 1:
            raise MetagenError(f"{name}={value}: expected a number of 1 or more, or null to choose it")
    if device.type != "cpu":
        if workers not in (None, 1):
            raise MetagenError(
                f"workers={workers} on {device.type}: threads help a CPU only, use workers=null"
            )
        return Plan(chunk or tasks, 1)
    if chunk is None and workers is None and tasks > 1 and width is not None and tasks * width() <= NARROW:
        return Plan(_within(tasks, 1, kept), 1)
    if torch.is_autocast_enabled("cpu"):
        workers = 1  # a thread would not inherit it
    if workers is None:
        workers = min(torch.get_num_threads(), -(-tasks // (chunk or 1)))
    if chunk is None:
        chunk = min(LARGEST, -(-tasks // workers))
        if chunk > 1 and width is not None:
            chunk = max(1, min(chunk, WIDEST // max(1, width())))
        chunk = _within(chunk, workers, kept)
    return Plan(chunk, workers)


def _within(chunk: int, workers: int, kept: Callable[[], int] | None) -> int:
    """Return the size of a chunk that remembers as much as it may."""
    if chunk == 1 or kept is None:
        return chunk
    return max(1, min(chunk, MOST // max(1, workers * kept())))


class Size(NamedTuple):
    """Bytes of what a loss keeps for its gradient: of its largest tensor, and of all together."""

    largest: int
    kept: int


def size_of(loss: Callable[[], Tensor]) -> Size:
    """Return the bytes of the tensors that ``loss()`` keeps for its gradient, each once."""
    largest = 0
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, x.numel() * x.element_size())
        storage = x.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = loss()  # what is kept lives as long as this, so that no address is used twice
    del result
    return Size(largest, sum(storages.values()))


def mean_over(
    loss: Callable[..., Tensor], batch: Any, modules: Sequence[nn.Module], how: Plan, leaves: Sequence[Tensor]
) -> Tensor:
    """Return the mean over the tasks of ``batch``, a scalar whose gradient by ``leaves`` is already known.

    Args:
        loss: ``loss(*modules, part)`` is the sum over the tasks of a part of the batch.
        batch: a tree with a leading T on every tensor.
        modules: what the loss reads; every worker gets replicas that share all tensors.
        how: the chunks and the workers.
        leaves: the tensors with a gradient.
    """
    count = tasks_of(batch)
    parts = parts_of(batch, how.chunk)

    def work(part: Any) -> tuple[Tensor, list[Tensor | None]]:
        value = loss(*(map(replica, modules) if how.workers > 1 else modules), part) / count
        if not value.requires_grad:
            return value, [None] * len(leaves)
        return value.detach(), list(torch.autograd.grad(value, list(leaves), allow_unused=True))

    with torch.enable_grad():
        results = _in_threads(work, parts, how.workers) if how.workers > 1 else list(map(work, parts))
    value = torch.stack([part for part, _ in results]).sum()
    grads = [_sum(parts) for parts in zip(*(grads for _, grads in results), strict=True)]
    return _Known.apply(value, grads, *leaves)


def _in_threads(work: Callable[[Any], Any], parts: Sequence[Any], workers: int) -> list[Any]:
    """Map ``work`` over ``parts`` in threads that each compute with one core."""
    threads = torch.get_num_threads()

    def alone(part: Any) -> Any:
        torch.set_num_threads(1)
        return work(part)

    try:
        return list(_pool(workers).map(alone, parts))
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="metagen")


def replica(module: M) -> M:
    """Return a module with the same tensors and attributes, for a thread of its own.

    ``functional_call`` exchanges the parameters of a module while it runs, so that two threads cannot
    share one.
    """
    twin = copy.copy(module)
    twin.__dict__["_parameters"] = dict(module._parameters)
    twin.__dict__["_buffers"] = dict(module._buffers)
    twin.__dict__["_modules"] = {
        name: None if child is None else replica(child) for name, child in module._modules.items()
    }
    return twin


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known).sum(0) if known else None


class _Known(torch.autograd.Function):
    """A value whose gradient was computed before."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, grads: list[Tensor | None], *leaves: Tensor) -> Tensor:
        ctx.grads = grads
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Any, ...]:
        return None, None, *(None if grad is None else grad * outer for grad in ctx.grads)
