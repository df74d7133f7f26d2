"""The set-up of a process that trains: its allocator, and which warnings it shows."""

import ctypes
import logging
import warnings
from contextlib import suppress

NOISE = (
    "does not have many workers", "IterableDataset", "LeafSpec", "No device id", "srun", "GPU available",
    "sync_dist",
)  # fmt: skip


def quiet() -> None:
    """Set up a process that trains: its allocator, and no warnings of what is meant."""
    keep_freed_memory()
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def keep_freed_memory() -> None:
    """Let glibc's allocator keep the memory that is freed, for the rest of the process.

    By default it returns every large block to the system, which hands it out again page by page:
    measured on a training step, up to a quarter of the time, and half of it in threads, whose own
    arenas cannot hold large blocks: so there is one arena for all. Other allocators stay as they are.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(arena_max, 1)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)
