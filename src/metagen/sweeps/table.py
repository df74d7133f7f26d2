"""The table at the end of a sweep."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from metagen.config.overrides import by_key
from metagen.report.tables import comparison_table
from metagen.sweeps.plan import Job, JobRecord, Sweep

COLUMNS = 4
"""Metrics at most: more do not fit into a terminal's line."""


def jobs_table(sweep: Sweep, jobs: Sequence[Job], metrics: Sequence[str] = ()) -> str:
    """Return a line for each job, then what went wrong, then how many came to their end.

    Args:
        sweep: the plan.
        jobs: those to show.
        metrics: which, the main one first; by default those that the records have.
    """
    records = [record_of(sweep, job) for job in jobs]
    pairs, keys = list(zip(jobs, records, strict=True)), differing(jobs)
    rows = [_row(sweep, job, record, keys, metrics) for job, record in pairs]
    lines = [comparison_table(rows)[0]]
    for job, record in pairs:
        if record.error:
            lines += [f"job {job.number} {record.state}: {record.error}", f"  log {sweep.log(job)}"]
    counts = Counter(record.state for record in records)
    lines.append(f"sweep {sweep.root}: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    if sweep.unfinished():
        lines.append(f"metagen train -m --resume {sweep.root} runs those again that are not done")
    return "\n".join(lines)


def ended_line(job: Job, record: JobRecord) -> str:
    """Say how a job ended."""
    why = f": {record.error}" if record.error and record.state == "failed" else ""
    return f"job {job.number} {record.state} after {duration(record.seconds)}{why}"


def record_of(sweep: Sweep, job: Job) -> JobRecord:
    """Return how a job went; one that nobody watches any more counts as lost."""
    record = sweep.record(job) or JobRecord()
    lost = JobRecord("lost", "its process ended without a trace", record.started)
    return lost if record.state == "running" else record


def duration(seconds: float | None) -> str:
    """Return seconds as ``h:mm:ss`` or ``m:ss``."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _row(
    sweep: Sweep, job: Job, record: JobRecord, keys: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    found = (sweep.result(job) or {}).get("metrics", {}) if record.state == "done" else {}
    overrides = by_key(job.overrides)
    row: dict[str, Any] = {"job": job.number}
    row |= {key: overrides.get(key) for key in keys}
    row |= {"state": record.state, "time": duration(record.seconds)}
    return row | {name: found.get(name) for name in (metrics or list(found))[:COLUMNS]}


def differing(jobs: Sequence[Job]) -> list[str]:
    """Return the keys of overrides whose values are not the same in all jobs."""
    overrides = [by_key(job.overrides) for job in jobs]
    keys = list(dict.fromkeys(key for one in overrides for key in one))
    return [key for key in keys if len({one.get(key) for one in overrides}) > 1]
