"""What Hydra hands to its launcher."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Task:
    """A job function that says by name what it does, so that a process of its own can do it, too.

    name:     ``"train"`` or ``"evaluate"``.
    function: does it in this process.
    codes:    the exit codes of jobs that failed.
    """

    name: str
    function: Callable[[Any], float | None]
    codes: list[int]

    def __call__(self, cfg: Any) -> float | None:
        """Do the job in this process and return its first metric, or None where it failed."""
        return self.function(cfg)
