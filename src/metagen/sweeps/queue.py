"""Jobs in processes, one for each slot at a time."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from metagen.config.overrides import by_key
from metagen.errors import MetagenError
from metagen.sweeps.children import Spawned, Starter
from metagen.sweeps.forks import ForkServer
from metagen.sweeps.plan import Job, Sweep
from metagen.sweeps.process import Process
from metagen.sweeps.slots import Slot
from metagen.sweeps.table import differing, ended_line

POLL = 0.05
"""Seconds between two looks at the processes."""


class SweepInterruptedError(MetagenError):
    """A sweep was told to stop by a signal, after its jobs have saved their state."""

    def __init__(self, sweep: Sweep, number: int) -> None:
        super().__init__(f"interrupted; metagen train -m --resume {sweep.root} finishes the sweep")
        self.code = 128 + number


class Queue:
    """Runs the jobs of a sweep on slots.

    The first SIGINT or SIGTERM is passed on to the jobs, which save their state, and no job starts any
    more; the second one kills them.

    Args:
        sweep: the plan.
        slots: places for jobs.
        echo: takes the lines that the user is to see.
        show: takes at every look the jobs that run, and how many wait.
        forked: whether the jobs are forked from one process that has imported what they need; otherwise each
            one is started anew.
    """

    def __init__(
        self,
        sweep: Sweep,
        slots: Sequence[Slot],
        echo: Callable[[str], Any],
        show: Callable[[Sequence[Job], int], Any] = lambda running, waiting: None,
        forked: bool = True,
    ) -> None:
        self.sweep, self.echo, self.show, self.forked = sweep, echo, show, forked
        self.free, self.running = deque(slots), dict[Process, Slot]()
        self.heard: list[int] = []
        self._passed_on = 0
        self.keys = differing(sweep.jobs)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run ``jobs`` in their order.

        Raises:
            SweepInterruptedError: a signal came.
            MetagenError: jobs of the sweep are running already.
        """
        waiting = deque(jobs)
        with self.sweep.locked() as lock, self._starting(lock) as start, self._signals():
            try:
                while self.running or (waiting and not self.heard):
                    while waiting and self.free and not self.heard:
                        self._start(waiting.popleft(), start)
                    self._pass_on()
                    self._collect()
                    self.show([process.job for process in self.running], len(waiting))
                    time.sleep(POLL)
            finally:
                for process in self.running:
                    process.stop(signal.SIGKILL)
        if self.heard:
            raise SweepInterruptedError(self.sweep, self.heard[0])

    @contextmanager
    def _starting(self, lock: int) -> Iterator[Starter]:
        """Yield what starts processes that inherit the descriptor ``lock``."""
        if not self.forked:
            yield partial(Spawned, inherit=[lock])
            return
        server = ForkServer([lock])
        try:
            yield server
        finally:
            server.close()

    def _start(self, job: Job, start: Starter) -> None:
        slot, again = self.free.popleft(), self.sweep.record(job)
        # With as many threads as before a job that goes on ends in the same bits.
        kept = slot._replace(threads=again.threads) if again and again.threads else slot
        self.running[Process(self.sweep, job, kept.environment(), start)] = slot
        own = by_key(job.overrides)
        label = " ".join(f"{key}={own[key]}" for key in self.keys if key in own)
        self.echo(f"job {job.number} {'started again' if again else 'started'} ({kept}) {label}".rstrip())

    def _collect(self) -> None:
        for process, slot in list(self.running.items()):
            if record := process.poll():
                del self.running[process]
                self.free.append(slot)
                self.echo(ended_line(process.job, record))

    def _pass_on(self) -> None:
        """Pass on the signals that came since the last look."""
        while self._passed_on < len(self.heard):
            again, number = self._passed_on > 0, self.heard[self._passed_on]
            self._passed_on += 1
            self.echo(
                f"killing {len(self.running)} jobs"
                if again
                else f"stopping {len(self.running)} jobs, which save their state (again to kill them)"
            )
            for process in self.running:
                process.stop(signal.SIGKILL if again else number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def hear(number: int, frame: FrameType | None) -> None:
            self.heard.append(number)

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
