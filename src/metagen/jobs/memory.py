"""Whether a run would fit into the memory, estimated before anything of it is made."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metagen.errors import UsageError

CGROUP = Path("/sys/fs/cgroup/memory.max")
COPIES = 4
"""Of every weight in training: itself, its gradient, and the two moments of Adam."""
FLOAT = 4


def available() -> int:
    """Return the bytes of memory that there are for a process, in use or not; the largest device counts."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # where there is no limit
        there = min(there, int(CGROUP.read_text()))
    cards = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    return max(there, *cards, 0) if cards else there


def check_weights(make: Callable[[], nn.Module]) -> None:
    """Refuse what has more weights than fit.

    Args:
        make: returns the module; called where tensors have a shape and take no memory.

    Raises:
        UsageError: it does not fit.
    """
    with torch.device("meta"):
        module = make()
    count = sum(tensor.numel() for tensor in [*module.parameters(), *module.buffers()])
    refuse(
        COPIES * FLOAT * count, f"{count:,} weights with what trains them", "the widths of model and learner"
    )


def check_batches(config: Mapping[str, Any]) -> None:
    """Refuse a task whose largest batch of images, real or drawn, would not fit.

    Args:
        config: of a run, checked by its schema.

    Raises:
        UsageError: it does not fit.
    """
    task, data = config["task"], config["data"]
    image = FLOAT * (data.get("size") or 28) ** 2 * (data.get("channels") or 1)
    ways, shots = task.get("ways") or 1, task.get("shots")
    if shots is None:
        return  # plain training: a batch is at most the data set
    queries, test_ways = task["queries"], task.get("test_ways") or ways
    test = (task.get("test_shots") or shots) + (task.get("test_queries") or queries)
    together = min(
        task.get("eval_batch") or 10, max(task.get("episodes") or 200, task.get("val_episodes") or 0)
    )
    drawn = config["samples"] if task.get("kind") == "generate" else 0
    batches = {
        "task.batch": task["batch"] * ways * (shots + queries),
        "task.eval_batch": together * test_ways * test,
        "samples": together * test_ways * drawn,
    }
    for key, images in batches.items():
        refuse(images * image, f"{images:,} images at a time", key)


def refuse(size: int, what: str, remedy: str) -> None:
    """Refuse what takes more memory than there is.

    Raises:
        UsageError: ``size`` bytes are more than :func:`available`.
    """
    there = available()
    if size > there:
        raise UsageError(
            f"{what} would take about {size / 2**30:,.1f} GiB of memory, of which there are "
            f"{there / 2**30:,.1f}: lower {remedy}"
        )
