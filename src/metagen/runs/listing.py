"""The list of runs and of how they stand: the job behind ``metagen list``."""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metagen.config.overrides import by_key
from metagen.errors import MetagenError
from metagen.reading import read_yaml
from metagen.report.tables import comparison_table, number
from metagen.runs.progress import Progress, works_on
from metagen.runs.records import (
    has_checkpoint,
    is_exported,
    read_record,
    run_folders,
    short_of,
    sweeps_without_runs,
)
from metagen.runs.settings import settings_of

LEGEND = (
    "done: has metrics.json. short: has it, too, but fewer steps than it was told. "
    "running: a process works on it. interrupted: none does, and checkpoints/last.ckpt holds its state. "
    "exported: a model without a record. unfinished: none of these. broken: its metrics.json cannot be read."
)


MOST = 5
"""Commands that are shown at most."""
DEPTH = 3
"""Folders above that of a run in which its sweep's plan is looked for."""


class Listed(NamedTuple):
    """A run: its folder, state, last change (seconds since 1970), and what else is known of it."""

    folder: Path
    state: str
    changed: float
    settings: Mapping[str, str]
    metric: str | None = None
    trouble: str | None = None
    progress: Progress | None = None


def listing(folders: Sequence[Path], now: float | None = None) -> str:
    """Return a table of all runs below ``folders``, finished or not, the newest first.

    Args:
        folders: searched for runs.
        now: seconds since 1970 by which a run's age is told; default: the clock's.

    Raises:
        MetagenError: a folder does not exist, or there is no run.
    """
    now = time.time() if now is None else now
    runs = sorted((_listed(folder, now) for folder in run_folders(folders)), key=lambda run: -run.changed)
    sweeps = [
        f"{path}: no job has begun; {_resumed_by(path)} goes on" for path in sweeps_without_runs(folders)
    ]
    if not runs and not sweeps:
        raise MetagenError(f"no run below {', '.join(map(str, folders))}: metagen train makes one")
    if not runs:
        return "\n".join(sweeps)
    table = comparison_table([_row(run, now) for run in runs])[0]
    troubles = [f"{run.folder}: {run.trouble}" for run in runs if run.trouble]
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    legend = [LEGEND] if set(states) != {"done"} else []
    return "\n".join([table, "", f"{len(runs)} runs: {counts}", *troubles, *_goes_on(runs), *sweeps, *legend])


def _listed(folder: Path, now: float) -> Listed:
    if (progress := works_on(folder, now)) is not None:
        changed = _changed([*_files(folder), folder])
        return Listed(folder, "running", changed, _told(folder), progress=progress)
    try:
        record = read_record(folder)
        changed, short = _changed([folder / "metrics.json"]), short_of(record)
        state = "done" if short is None else "short"
        return Listed(folder, state, changed, settings_of(record), _main(record), short)
    except FileNotFoundError:
        left = "exported" if is_exported(folder) else "unfinished"
        state, trouble = "interrupted" if has_checkpoint(folder) else left, None
    except (ValueError, OSError, AttributeError, TypeError) as error:
        state, trouble = "broken", f"metrics.json cannot be read ({' '.join(str(error).split())[:120]})"
    changed = _changed([*_files(folder), folder])
    return Listed(folder, state, changed, _told(folder), None, trouble)


def _goes_on(runs: Sequence[Listed]) -> list[str]:
    """Return the commands by which the interrupted runs go on, one for all that are jobs of one sweep."""
    commands = dict.fromkeys(_resumed_by(run.folder) for run in runs if run.state == "interrupted")
    shown = [f"{command} goes on" for command in list(commands)[:MOST]]
    return shown if len(commands) <= MOST else [*shown, f"... and {len(commands) - MOST} more like these"]


def _resumed_by(folder: Path) -> str:
    sweep = next(
        (one for one in (folder, *list(folder.parents)[:DEPTH]) if (one / "jobs.json").is_file()), None
    )
    if sweep is not None:
        return f"metagen train -m --resume {shlex.quote(str(sweep))}"
    return f"metagen train --resume {shlex.quote(str(folder))}"


def _files(folder: Path) -> Iterator[Path]:
    for part in (folder, folder / "checkpoints", folder / ".hydra"):
        if part.is_dir():
            yield from (path for path in part.iterdir() if path.is_file())


def _changed(paths: Sequence[Path]) -> float:
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def _main(record: Mapping[str, Any]) -> str | None:
    """Return the main metric with its value, and the one beside which it is to be read.

    An older record does not know which one it is.
    """
    name = record.get("main") or next(iter(record["metrics"]), None)
    shown = [_value(record, str(one)) for one in (name, record.get("beside")) if one in record["metrics"]]
    return ", ".join(shown) or None


def _value(record: Mapping[str, Any], name: str) -> str:
    found, unit = record["metrics"][name], record.get("units", {}).get(name, "")
    return f"{name.replace('_', ' ')} {number(found.get('mean'), found.get('ci95'))} {unit}".rstrip()


def _told(folder: Path) -> dict[str, str]:
    """Return choices and overrides of a run that left no record, as far as Hydra wrote them down."""
    try:
        hydra = read_yaml(folder / ".hydra" / "hydra.yaml")["hydra"]
        chosen = {key: str(value) for key, value in hydra["runtime"]["choices"].items() if value is not None}
        return {**chosen, **by_key(hydra["overrides"]["task"])}
    except (OSError, MetagenError, KeyError, TypeError, AttributeError):
        return {}


def _row(run: Listed, now: float) -> dict[str, Any]:
    told = {key: value for key, value in run.settings.items() if value not in ("null", "None")}
    task = told.get("experiment") or " ".join(filter(None, [told.get("data"), told.get("task")])) or None
    return {
        "run": str(run.folder),
        "state": run.state,
        "age": age(now - run.changed),
        "task": task,
        "learner": told.get("learner"),
        "model": told.get("model"),
        "seed": told.get("seed"),
        "main metric": run.metric if run.progress is None else _so_far(run.progress),
    }


def _so_far(progress: Progress) -> str:
    """Return what stands in the place of a result while there is none."""
    if progress.doing == "trains" and progress.step is not None:
        return f"step {progress.step} of {progress.steps}"
    return progress.doing


def age(seconds: float) -> str:
    """Return a duration in its largest unit, such as ``5 min``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
