"""Find runs below folders and read their records, however they ended."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metagen.errors import MetagenError
from metagen.files import natural_key
from metagen.reading import read_json
from metagen.runs.settings import Record, settings_of
from metagen.runs.shape import SHAPE, misfit

WEIGHTS = "model.safetensors"
"""The weights of an exported run, in its folder."""


@dataclass(eq=False)
class FinishedRun:
    """A finished run: its folder, its record, and what it was told (:func:`settings_of`)."""

    folder: Path
    record: Record
    settings: dict[str, str]
    _arrays: dict[tuple[str, int | None], np.ndarray | None] = field(default_factory=dict, repr=False)

    def values(self, metric: str, budget: int | None = None) -> np.ndarray | None:
        """Return the metric of every episode, (E,), NaN where undefined; None where it was not kept.

        Args:
            metric: its name, or ``nll_tN``: the likelihood given N context images.
            budget: after at most so many steps: at the largest number that was measured and is not
                above; None means at the end of the adaptation. A learner without steps has one value.
        """
        key = metric, budget
        if key not in self._arrays:
            found = self._found(metric, budget)
            self._arrays[key] = None if found is None else np.array(found, dtype=np.float64)
        return self._arrays[key]

    def _found(self, metric: str, budget: int | None) -> Sequence[float | None] | None:
        last = max(self.steps, default=0)
        if budget is None or budget >= last:
            for row in (self.record.get("likelihood") or {}).get("contexts", ()):
                if metric == f"nll_t{row['images']}":
                    return row["per_episode"]
            return self.record.get("per_episode", {}).get(metric)
        step = max((step for step in self.steps if step <= budget), default=None)
        return self.record.get("per_episode_by_step", {}).get(str(step), {}).get(metric)

    def lacks_steps(self, budget: int | None, all_below: bool) -> bool:
        """Return whether values at ``budget`` (``all_below``: or fewer) steps are asked for but not kept."""
        last = max(self.steps, default=0)
        early = last > 0 if all_below else budget is not None and budget < last
        return early and "per_episode_by_step" not in self.record

    @property
    def steps(self) -> list[int]:
        """The numbers of adaptation steps that were measured."""
        return [int(point["step"]) for point in self.record.get("adaptation", ())]


class Left(NamedTuple):
    """A run that takes no part, and why."""

    folder: Path
    why: str


def collect(folders: Sequence[Path]) -> tuple[list[FinishedRun], list[Left]]:
    """Return the finished runs below ``folders`` and the others, jobs of a sweep in their order.

    Raises:
        MetagenError: a folder does not exist, or none holds a finished run.
    """
    runs, left = [], []
    for folder in run_folders(folders):
        try:
            record = read_record(folder)
            runs.append(FinishedRun(folder, record, settings_of(record)))
        except FileNotFoundError:
            saved = "; checkpoints/last.ckpt holds its state" if has_checkpoint(folder) else ""
            state = "an exported model" if is_exported(folder) else f"unfinished (no metrics.json{saved})"
            left.append(Left(folder, state))
        except (ValueError, OSError, AttributeError, TypeError) as error:
            left.append(Left(folder, f"its metrics.json cannot be read ({_short(error)})"))
    if not runs:
        found = f"; {len(left)} unfinished or unreadable: {left[0].folder} is {left[0].why}" if left else ""
        raise MetagenError(
            f"no finished run below {', '.join(map(str, folders))}: metrics.json is in none{found}"
        )
    return runs, left


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Return every folder that a run left, once, in natural order: job 2 before job 10.

    Raises:
        MetagenError: a folder does not exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise MetagenError(f"no folder {folder}: name one with runs below it, such as outputs")
    found = dict.fromkeys(
        path for path, inside in _walk(folders) if "metrics.json" in inside or ".hydra" in inside
    )
    return sorted(found, key=lambda path: natural_key(str(path)))


def sweeps_without_runs(folders: Sequence[Path]) -> list[Path]:
    """Return every folder of a sweep none of whose jobs has begun: it was killed, or begins right now."""
    sweeps = dict.fromkeys(path for path, inside in _walk(folders) if "jobs.json" in inside)
    return [path for path in sweeps if not run_folders([path])]


def _walk(folders: Sequence[Path]) -> Iterator[tuple[Path, set[str]]]:
    """Walk through folders that may hold runs, each with the names in it."""
    for folder in folders:
        for path, names, files in os.walk(folder):
            yield Path(path), {*names, *files}
            names[:] = [name for name in names if name not in (".hydra", "checkpoints")]


def read_record(folder: Path) -> Record:
    """Return what ``metrics.json`` says.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no record of a run.
    """
    try:
        record: Any = read_json(folder / "metrics.json")
    except MetagenError as error:
        raise ValueError(str(error)) from error
    if not isinstance(record, dict):
        raise ValueError("it is no record of a run")
    if (wrong := misfit(record, SHAPE)) is not None:
        raise ValueError(f"it has no '{wrong}' as the record of a run has")
    return record


def short_of(record: Record) -> str | None:
    """Return how far a training is short of its steps and what ended it; None where it is not.

    Raises:
        TypeError: the record says something else than numbers.
    """
    training = record["training"]
    steps, planned = training.get("steps"), training.get("planned")
    if not planned or steps is None or steps >= planned:
        return None
    return f"{int(steps)} of {int(planned)} steps, ended by {training.get('ended') or 'something'}"


def is_exported(folder: Path) -> bool:
    """Return whether a folder is what ``metagen export`` makes: weights, a configuration, and no record."""
    return (folder / WEIGHTS).is_file()


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run's last state was saved."""
    return (folder / "checkpoints" / "last.ckpt").is_file()


def left_lines(left: Sequence[Left], most: int = 3) -> list[str]:
    """Return a line for each reason, with the first ``most`` folders that were left out for it."""
    by_reason: dict[str, list[str]] = {}
    for folder, why in left:
        by_reason.setdefault(why, []).append(str(folder))
    return [
        f"left out: {', '.join(names[:most])}"
        + (f" and {len(names) - most} more" if len(names) > most else "")
        + f": {why}"
        for why, names in by_reason.items()
    ]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
