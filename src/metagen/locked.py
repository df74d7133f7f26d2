"""A lock on a file that several processes would make: one makes it, the others wait and then find it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

SUFFIX = ".lock"


@contextmanager
def locked(file: Path, waits: Callable[[], Any]) -> Iterator[None]:
    """Hold the lock of ``file``, which lies beside it; it is free again when its process ends, however.

    Where nothing can be locked, such as a folder that cannot be written, there is no lock.

    Args:
        file: to be made.
        waits: is called once if another process holds the lock.
    """
    lock = FileLock(f"{file}{SUFFIX}")
    with suppress(OSError, NotImplementedError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waits()
            lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            # Who waits holds what is gone now, and who comes next does not wait for them: both find the file.
            with suppress(OSError):
                Path(lock.lock_file).unlink()
        lock.release()
