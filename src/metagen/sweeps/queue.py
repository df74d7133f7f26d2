"""Jobs in processes, one for each slot at a time."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from metagen.config.overrides import by_key
from metagen.errors import MetagenError
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
    """

    def __init__(self, sweep: Sweep, slots: Sequence[Slot], echo: Callable[[str], Any]) -> None:
        self.sweep, self.echo = sweep, echo
        self.free, self.running = deque(slots), dict[Process, Slot]()
        self.signal: int | None = None
        self.keys = differing(sweep.jobs)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run ``jobs`` in their order.

        Raises:
            SweepInterruptedError: a signal came.
            MetagenError: jobs of the sweep are running already.
        """
        waiting = deque(jobs)
        with self.sweep.locked() as lock, self._signals():
            try:
                while self.running or (waiting and self.signal is None):
                    while waiting and self.free and self.signal is None:
                        self._start(waiting.popleft(), lock)
                    self._collect()
                    time.sleep(POLL)
            finally:
                for process in self.running:
                    process.stop(signal.SIGKILL)
        if self.signal is not None:
            raise SweepInterruptedError(self.sweep, self.signal)

    def _start(self, job: Job, lock: int) -> None:
        slot, again = self.free.popleft(), self.sweep.record(job)
        # With as many threads as before a job that goes on ends in the same bits.
        kept = slot._replace(threads=again.threads) if again and again.threads else slot
        self.running[Process(self.sweep, job, kept.environment(), [lock])] = slot
        own = by_key(job.overrides)
        label = " ".join(f"{key}={own[key]}" for key in self.keys if key in own)
        self.echo(f"job {job.number} {'started again' if again else 'started'} ({kept}) {label}".rstrip())

    def _collect(self) -> None:
        for process, slot in list(self.running.items()):
            if record := process.poll():
                del self.running[process]
                self.free.append(slot)
                self.echo(ended_line(process.job, record))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def pass_on(number: int, frame: FrameType | None) -> None:
            again, self.signal = self.signal is not None, number
            self.echo(
                f"killing {len(self.running)} jobs"
                if again
                else f"stopping {len(self.running)} jobs, which save their state (again to kill them)"
            )
            for process in self.running:
                process.stop(signal.SIGKILL if again else number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
