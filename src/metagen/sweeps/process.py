"""One job as a process of its own."""

import os
import platform
import signal
import time
from collections.abc import Mapping
from dataclasses import replace

from metagen.config.overrides import quoted
from metagen.errors import TrialPrunedError
from metagen.sweeps.children import Command, Spawned, Starter
from metagen.sweeps.forks import JOB
from metagen.sweeps.plan import Job, JobRecord, Sweep
from metagen.variables import PARENT, TRIAL

OWN = ("hydra.mode", "hydra.sweep", "hydra.run", "hydra/launcher", "hydra.launcher", "hydra/sweeper")
"""Overrides of Hydra that are the sweep's business."""


class Process:
    """A job that runs; its record in the sweep's folder tells how it goes.

    Args:
        sweep: the plan.
        job: which one; where it was started before, it goes on from its last checkpoint.
        environment: variables of its own, beside those of this process.
        start: makes the process.
    """

    def __init__(
        self,
        sweep: Sweep,
        job: Job,
        environment: Mapping[str, str] | None = None,
        start: Starter = Spawned,
    ) -> None:
        self.sweep, self.job, self.stopped = sweep, job, False
        words, folder = command(sweep, job), sweep.cwd if os.path.isdir(sweep.cwd) else None
        env = {**os.environ, **(environment or {}), PARENT: str(os.getpid())}
        env |= {TRIAL: f"{job.number}:{sweep.study}"} if sweep.study else {}
        devices, threads = env.get("CUDA_VISIBLE_DEVICES"), env.get("OMP_NUM_THREADS", "")
        place = (platform.node(), devices, int(threads) if threads.isdigit() else None)
        self.record = JobRecord("running", None, time.time(), None, *place)
        sweep.write_record(job, self.record)
        log = sweep.log(job)
        self._offset = log.stat().st_size if log.exists() else 0
        self._process = start(Command(words, env, folder, log))

    def stop(self, number: int) -> None:
        """Send a signal; what comes of it is an interruption, no failure."""
        self.stopped = True
        self._process.stop(number)

    def poll(self) -> JobRecord | None:
        """Return how the job went, or None while it runs."""
        code = self._process.poll()
        return None if code is None else self._ended(code)

    def wait(self) -> JobRecord:
        """Return how the job went, at its end; what interrupts the wait ends the job, its state saved."""
        try:
            return self._ended(self._process.wait())
        except BaseException:
            self.stop(signal.SIGTERM)
            self._ended(self._process.wait())
            raise

    def _ended(self, code: int) -> JobRecord:
        kept = self.sweep.record(self.job)
        done = kept is not None and kept.state == "done"
        state = "done" if done else "interrupted" if self.stopped else state_of(code)
        error = None if done else self._last_line() if code >= 0 else _killed(-code)
        self.record = replace(self.record, state=state, error=error, ended=time.time())
        self.sweep.write_record(self.job, self.record)
        return self.record

    def _last_line(self) -> str:
        """Return the last error that this attempt printed, or its last line."""
        with self.sweep.log(self.job).open("rb") as file:
            file.seek(self._offset)
            text = file.read().decode(errors="replace")
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("metagen: error: ")]
        return ([*lines, *errors] or ["it ended without a word"])[-1].removeprefix("metagen: error: ")


def state_of(code: int) -> str:
    """Return the state of a job that did not come to its end, by its exit code."""
    if code < 0:
        return f"killed ({signal.Signals(-code).name})"
    if code == TrialPrunedError.code:
        return "pruned"
    return "interrupted" if code in (128 + signal.SIGINT, 128 + signal.SIGTERM) else "failed"


def command(sweep: Sweep, job: Job) -> list[str]:
    """Return the command that does a job: it starts it, or goes on where it was started before."""
    process, folder = list(JOB), sweep.path(job).absolute()
    started = sweep.record(job) is not None and (folder / ".hydra" / "overrides.yaml").is_file()
    if started and sweep.task == "train":
        return [*process, "train", "--resume", str(folder)]
    place = [f"hydra.job.num={job.number}", f"hydra.run.dir={quoted(str(folder))}"]
    shared = [text for text in sweep.hydra if not text.lstrip("+~").startswith(OWN)]
    own = [text for text in job.overrides if not text.lstrip("+~").startswith(OWN)]
    # The folder is the sweep's own: a cluster's worker or an earlier attempt may have left something there.
    what = [sweep.task, *([] if sweep.run is None else [sweep.run])]
    return [*process, *what, *sweep.flags, *shared, *own, *place, "--force"]


def _killed(number: int) -> str:
    if number == signal.SIGKILL:
        return "killed from outside, or out of memory"
    return (signal.strsignal(number) or "unknown signal").lower()
