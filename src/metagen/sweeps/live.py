"""The live table of a sweep: what its jobs do, redrawn on a terminal, elsewhere a line now and then."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from metagen.config.overrides import by_key
from metagen.console import echo, printable
from metagen.report.tables import comparison_table
from metagen.runs.progress import Progress, works_on
from metagen.sweeps.plan import Job, Sweep
from metagen.sweeps.table import differing, duration

REDRAWN = 1.0
"""Seconds between two tables on a terminal."""
SAID = 60.0
"""Seconds between two lines of a job where there is no terminal."""


class LiveTable:
    """Shows how far the jobs are that run; what else is said stands above it.

    Args:
        sweep: the plan.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.keys = sweep, differing(sweep.jobs)
        self.redrawn = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn, self._shown = 0, time.monotonic()

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self.erase()
        echo(text)

    def show(self, running: Sequence[Job], waiting: int) -> None:
        """Show how far the ``running`` jobs are, where it is time for that.

        Args:
            running: jobs.
            waiting: how many others have not been started yet.
        """
        now = time.monotonic()
        if now - self._shown < (REDRAWN if self.redrawn else SAID):
            return
        self._shown = now
        found = [(job, works_on(self.sweep.path(job))) for job in running]
        if self.redrawn:
            self._draw(found, waiting)
        else:
            for job, progress in found:
                echo(f"job {job.number}: {in_words(progress)}")

    def erase(self) -> None:
        """Take the table away; the next look draws it again."""
        if self._drawn:
            sys.stdout.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn, self._shown = 0, 0.0

    def _draw(self, found: Sequence[tuple[Job, Progress | None]], waiting: int) -> None:
        columns, lines = shutil.get_terminal_size()
        rows = [self._row(job, progress) for job, progress in found]
        table = comparison_table(rows)[0].splitlines() if rows else []
        # A line that the terminal breaks, or one that it scrolls away, could not be taken away again.
        most = max(1, lines - 3)
        hidden = len(table) - most
        shown = [*table[:most], *([f"... and {hidden} more"] if hidden > 0 else [])]
        shown.append(f"{len(rows)} running, {waiting} waiting")
        self.erase()
        echo("\n".join(printable(line)[: columns - 1] for line in shown))
        self._drawn, self._shown = len(shown), time.monotonic()

    def _row(self, job: Job, progress: Progress | None) -> dict[str, Any]:
        overrides = by_key(job.overrides)
        row: dict[str, Any] = {"job": str(job.number), **{key: overrides.get(key) for key in self.keys}}
        return row | {"doing": "starts", "step": None, "loss": None, "left": None} | told(progress)


def told(progress: Progress | None) -> dict[str, str | None]:
    """Return the cells of a job's progress."""
    if progress is None:
        return {}
    step = None if progress.step is None else f"{progress.step} of {progress.steps}"
    loss = None if progress.loss is None else f"{progress.loss:.4g}"
    left = None if progress.left is None else duration(progress.left)
    return {"doing": progress.doing, "step": step, "loss": loss, "left": left}


def in_words(progress: Progress | None) -> str:
    """Return a job's progress as a line: ``trains, step 54 of 1000, loss 0.1234, 3:02 left``."""
    cells = {"doing": "starts"} | {key: text for key, text in told(progress).items() if text}
    shown = {"doing": "{}", "step": "step {}", "loss": "loss {}", "left": "{} left"}
    return ", ".join(form.format(cells[key]) for key, form in shown.items() if key in cells)
