"""The task of a sweep, which Hydra hands to its launcher: what the jobs do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metagen.errors import UsageError
from metagen.runs.footprint import Footprint

WRITTEN = ("multirun.yaml", "jobs.json", "jobs", "study.db")
"""What a sweep writes into its folder beside its jobs."""


@dataclass
class Task:
    """What the jobs of a sweep do, each in a process of its own.

    name:  ``"train"`` or ``"evaluate"``.
    run:   the run that the jobs evaluate, or None.
    known: the overrides of that run, which the jobs need not be told.
    codes: the exit codes of jobs that failed.
    """

    name: str
    run: Path | None = None
    known: Sequence[str] = ()
    codes: list[int] = field(default_factory=list)
    _footprint: Footprint | None = None

    def __call__(self, cfg: Any) -> None:
        """Refuse to do the job in this process, as a launcher that is none of ours would have it.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "the jobs of a sweep are processes of their own: use hydra/launcher=queue (this machine), slurm "
            "or ray"
        )

    def begins(self, folder: Path) -> None:
        """Take the folder of the sweep, before anything is written there."""
        self._footprint = Footprint(folder, WRITTEN)

    def leave_nothing(self) -> None:
        """Take back what was written of a sweep that was refused before it began."""
        if self._footprint is not None and not (self._footprint.folder / "jobs.json").exists():
            self._footprint.undo()
