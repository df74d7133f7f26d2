"""The progress of a run: which process works on it and how far that is, as ``progress.json`` tells others.

The file is there while a process works on the run. One that a killed process has left is known by that: no
process of this machine has its number and its time of birth. Of another machine's process nothing is known
but when it last wrote.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError
from metagen.files import write_json
from metagen.processes import born, place
from metagen.reading import read_json

NAME = "progress.json"
SILENT = 600.0
"""Seconds without a word after which a process of another machine counts as dead."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    place: machine of the process that works on it, see :func:`metagen.processes.place`.
    pid:   its number, and ``born``: when it was born.
    doing: ``"starts"``, ``"trains"`` or ``"tests"``.
    step:  of the training, out of ``steps``; None before the first one.
    loss:  of the training, as it was last logged.
    left:  seconds that the training will take.
    """

    place: str
    pid: int
    born: int | None
    doing: str = "starts"
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    left: float | None = None

    @classmethod
    def read(cls, folder: Path) -> "Progress | None":
        """Return what the file in a run's folder tells; None where there is none that can be read."""
        with suppress(OSError, ValueError, TypeError, MetagenError):
            return cls(**read_json(folder / NAME))._checked()
        return None

    def _checked(self) -> "Progress":
        numbers = (self.pid, self.born, self.step, self.steps, self.loss, self.left)
        if not all(isinstance(one, int | float | None) for one in numbers) or not isinstance(self.pid, int):
            raise TypeError("a field that is no number")
        if not isinstance(self.doing, str) or not isinstance(self.place, str):
            raise TypeError("a field that is no text")
        return self


def works_on(folder: Path, now: float | None = None) -> Progress | None:
    """Return the progress of the process that works on a run, or None where there is none (any more)."""
    found = Progress.read(folder)
    if found is None:
        return None
    if found.place == place():
        return found if found.pid > 0 and found.born == born(found.pid) else None
    now = time.time() if now is None else now
    with suppress(OSError):
        return found if now - (folder / NAME).stat().st_mtime < SILENT else None
    return None


class Told:
    """Tells others of the progress of the run in ``folder``, in which this process works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._now = Progress(place(), os.getpid(), born(os.getpid()))

    def tell(self, **news: Any) -> None:
        """Write down what has changed; a full disk is no reason to end a training for."""
        self._now = replace(self._now, **news)
        with suppress(MetagenError):
            write_json(self.folder / NAME, asdict(self._now), lasting=False)


@contextmanager
def told(folder: Path) -> Iterator[Told]:
    """Tell others of a run's progress during the block, and no longer."""
    here = Told(folder)
    here.tell()
    try:
        yield here
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()
