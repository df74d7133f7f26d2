"""What Hydra hands to its launcher."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITTEN_FIRST = ("multirun.yaml",)
"""What Hydra writes into a sweep's folder before anything can be refused."""


@dataclass
class Task:
    """A job function that says by name what it does, so that a process of its own can do it, too.

    name:     ``"train"`` or ``"evaluate"``.
    function: does it in this process.
    codes:    the exit codes of jobs that failed.
    root:     the folder of the sweep, if it is one.
    """

    name: str
    function: Callable[[Any], float | None]
    codes: list[int]
    root: Path | None = None

    def __call__(self, cfg: Any) -> float | None:
        """Do the job in this process and return its first metric, or None where it failed."""
        return self.function(cfg)

    def leave_nothing(self) -> None:
        """Take the folder of a sweep away if it was refused before it began."""
        from metagen.runs.run import leave

        if self.root is not None and self.root.is_dir():
            leave(self.root, WRITTEN_FIRST)
