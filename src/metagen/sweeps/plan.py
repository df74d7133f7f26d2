"""The plan of a sweep, kept in its folder so that it can be finished later.

A sweep's folder holds, beside a folder for each job:

- ``jobs.json``: the plan; all jobs with their folders and overrides.
- ``jobs/N.json`` and ``jobs/N.log``: how job N went, and everything that it printed.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError
from metagen.files import write_json
from metagen.reading import read_json

TASKS = ("train", "evaluate")

log = logging.getLogger(__name__)

CLOCKS = 5.0
"""Seconds by which the clocks of a cluster's machines may differ."""


@dataclass(frozen=True)
class Job:
    """One job: its number, its folder within the sweep's, and the overrides that are its own."""

    number: int
    folder: str
    overrides: list[str]


def check_job_folder(job: Job) -> None:
    """Refuse a job whose files would lie outside of the sweep's folder.

    Raises:
        ValueError: it is one.
    """
    if not isinstance(job.number, int) or job.number < 0:
        raise ValueError(f"a job of the number {job.number!r}")
    path = Path(job.folder)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"job {job.number} has the folder {job.folder!r}, outside of the sweep's")


@dataclass(frozen=True)
class JobRecord:
    """How a job goes or went.

    state:   ``waiting``, ``running``, ``done``, ``failed``, ``pruned``, ``killed (SIGNAL)`` or
             ``interrupted``.
    error:   its last line, if it did not come to its end.
    started: seconds since the epoch, as ``ended``.
    devices: ``CUDA_VISIBLE_DEVICES`` of the job; None where nothing was pinned.
    threads: of the CPU; None where the system's default holds. They decide how sums are rounded.
    """

    state: str = "waiting"
    error: str | None = None
    started: float | None = None
    ended: float | None = None
    host: str | None = None
    devices: str | None = None
    threads: int | None = None

    @property
    def seconds(self) -> float | None:
        """Return how long it ran."""
        return self.ended - self.started if self.started and self.ended else None


@dataclass(frozen=True)
class Sweep:
    """The plan of a sweep.

    root:      its folder.
    task:      ``"train"`` or ``"evaluate"``.
    arguments: the overrides of the whole sweep, before they were multiplied out.
    hydra:     overrides of Hydra itself.
    flags:     options of the command line that decide where configurations are found.
    cwd:       working directory, to which paths in overrides are relative.
    study:     address of the study that may prune the jobs, or None.
    run:       folder of the run that the jobs evaluate, or None.
    """

    root: Path
    task: str
    arguments: list[str]
    hydra: list[str]
    flags: list[str]
    cwd: str
    jobs: list[Job] = field(default_factory=list)
    study: str | None = None
    run: str | None = None

    @classmethod
    def load(cls, root: Path) -> "Sweep":
        """Read the plan in ``root``.

        Raises:
            MetagenError: there is none, or it cannot be read.
        """
        path = root / "jobs.json"
        if not root.is_dir():
            raise MetagenError(f"no folder {root}: name a sweep's folder, such as outputs/multirun/DATE/TIME")
        if not path.is_file():
            raise MetagenError(f"{root} is no sweep's folder: it has no jobs.json")
        try:
            plan = read_json(path)
            return cls(root, **{**plan, "jobs": [Job(**job) for job in plan["jobs"]]})._checked()
        except (ValueError, KeyError, TypeError) as error:
            raise MetagenError(f"{path} cannot be read ({error}): start the sweep in a new folder") from error

    def _checked(self) -> "Sweep":
        """Return itself where every field is what it should be and every job's folder lies in the sweep's.

        Raises:
            TypeError, ValueError: it is not so.
        """
        words = [self.arguments, self.hydra, self.flags, *(job.overrides for job in self.jobs)]
        if not all(isinstance(list_, list) and all(isinstance(one, str) for one in list_) for list_ in words):
            raise TypeError("overrides that are no lists of words")
        if self.task not in TASKS or not isinstance(self.cwd, str) or not isinstance(self.study, str | None):
            raise ValueError(f"the task {self.task!r}" if self.task not in TASKS else "no cwd or study")
        if self.run is not None and (self.task != "evaluate" or not Path(self.run).is_absolute()):
            raise ValueError(f"the run {self.run!r}")  # it is a word of the jobs' command lines
        for job in self.jobs:
            check_job_folder(job)
        return self

    def save(self) -> None:
        """Write the plan."""
        plan = asdict(self)
        del plan["root"]
        write_json(self.root / "jobs.json", plan)

    def with_jobs(self, jobs: list[Job]) -> "Sweep":
        """Return the plan with ``jobs`` in it; one of a number that is there takes its place."""
        try:
            for job in jobs:
                check_job_folder(job)
        except ValueError as error:
            raise MetagenError(f"hydra.sweep.subdir: {error}; let it name a folder within") from error
        numbers = {job.number for job in jobs}
        kept = [job for job in self.jobs if job.number not in numbers]
        return replace(self, jobs=sorted([*kept, *jobs], key=lambda job: job.number))

    def path(self, job: Job) -> Path:
        """Return a job's folder."""
        return self.root / job.folder

    def log(self, job: Job) -> Path:
        """Return the file with what a job printed."""
        return self.root / "jobs" / f"{job.number}.log"

    def result(self, job: Job) -> dict[str, Any] | None:
        """Return what a job found, or None where it has not come to its end: its record is written last.

        A record that cannot be read is none, and the job runs again.
        """
        path = self.path(job) / "metrics.json"
        try:
            found = read_json(path)
            if not all(isinstance(one, dict) and "mean" in one for one in found["metrics"].values()):
                raise TypeError("its metrics have no means")
            return dict(found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, MetagenError) as error:
            log.warning("%s cannot be read (%s): job %d is not done", path, error, job.number)
            return None

    def unfinished(self) -> list[Job]:
        """Return the jobs that have not come to their end."""
        records = {job.number: self.record(job) for job in self.jobs}
        return [job for job in self.jobs if (records[job.number] or JobRecord()).state != "done"]

    def record(self, job: Job) -> JobRecord | None:
        """Return how a job goes, or None where it has not been started.

        A job with a result is done, whatever became of its process afterwards, or of the sweep.
        """
        path = self._record(job)
        if not path.is_file():
            return None
        try:
            found = _record_in(path)
        except (OSError, ValueError, TypeError, MetagenError) as error:
            log.warning("%s cannot be read (%s)", path, error)
            found = JobRecord("lost", f"its record {path} cannot be read")
        if self._finished(job, found):
            return replace(found, state="done", error=None)
        lost = "its metrics.json is gone or cannot be read"
        return replace(found, state="lost", error=lost) if found.state == "done" else found

    def _finished(self, job: Job, record: JobRecord) -> bool:
        """Return whether a job has a result that is not older than its start."""
        if self.result(job) is None:
            return False
        written = (self.path(job) / "metrics.json").stat().st_mtime
        return record.state == "done" or written >= (record.started or 0.0) - CLOCKS

    def write_record(self, job: Job, record: JobRecord) -> None:
        """Keep how a job goes."""
        write_json(self._record(job), asdict(record))

    def forget(self, job: Job) -> None:
        """Let a job be one that was never started."""
        self._record(job).unlink(missing_ok=True)

    def _record(self, job: Job) -> Path:
        return self.root / "jobs" / f"{job.number}.json"

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Let nobody else run jobs of this sweep; yield a descriptor that holds the lock.

        Jobs inherit it, so the lock outlives a sweep that is killed until the last of its jobs has ended.

        Raises:
            MetagenError: somebody does.
        """
        (self.root / "jobs").mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / "jobs" / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
        except BlockingIOError as error:
            raise MetagenError(f"jobs of the sweep {self.root} are still running: wait for them") from error
        finally:
            os.close(descriptor)


def _record_in(path: Path) -> JobRecord:
    """Return a job's record.

    Raises:
        MetagenError: it is none.
    """
    try:
        record = JobRecord(**read_json(path))
        texts, times = (record.error, record.host, record.devices), (record.started, record.ended)
        if not all(isinstance(one, str | None) for one in (record.state, *texts)):
            raise TypeError("a field that is no text")
        if not all(isinstance(one, int | float | None) for one in (*times, record.threads)):
            raise TypeError("a field that is no number")
        return record
    except (ValueError, TypeError) as error:
        raise MetagenError(f"{path} cannot be read ({error}): delete it, and the job runs again") from error
