"""Groups of runs that can be compared, and that differ in nothing but their seed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from metagen.config.keys import WITHOUT_EFFECT
from metagen.errors import MetagenError, nearest
from metagen.runs.records import FinishedRun, Left
from metagen.runs.settings import differing, label, overrides_of

Cell = tuple[str | None, ...]


class Group(NamedTuple):
    """Runs that are averaged: one row of a table.

    name:   of the row, such as ``maml, task.shots=1``, with no more keys than tell it from the others.
    labels: its values by key.
    cells:  the runs by cell, one for each value of what ``--within`` names (a fold), and by seed.
    """

    name: str
    labels: dict[str, str | None]
    cells: dict[Cell, dict[int, FinishedRun]]

    def runs(self) -> list[FinishedRun]:
        """Return all runs."""
        return [run for seeds in self.cells.values() for run in seeds.values()]

    def seeds(self, cells: Iterable[Cell] | None = None) -> list[int]:
        """Return the seeds that are there in every one of ``cells``, by default of its own."""
        found = [set(self.cells[cell]) for cell in (self.cells if cells is None else cells)]
        return sorted(set.intersection(*found)) if found else []


def comparable(
    runs: Sequence[FinishedRun], within: Sequence[str] = ()
) -> tuple[dict[Cell, list[FinishedRun]], list[Left]]:
    """Return the runs by cell, where all of a cell were judged on the same episodes, and the others.

    In each cell the episodes that most runs were judged on count (of equally many, the first ones).

    Raises:
        MetagenError: an unknown key, or no two runs were judged on the same episodes.
    """
    _check_keys(runs, within, "--within")
    cells: dict[Cell, list[FinishedRun]] = {}
    for run in runs:
        cells.setdefault(tuple(run.settings.get(key) for key in within), []).append(run)
    kept: dict[Cell, list[FinishedRun]] = {}
    left: list[Left] = []
    for cell, members in cells.items():
        # A record of an earlier version does not know the checksum of its images.
        nameless = {_episodes(run) for run in members if not _bank(run).get("sha256")}
        who = {id(run): identity(run, _episodes(run) not in nameless) for run in members}
        counts = Counter(who.values())
        best, count = counts.most_common(1)[0]
        reference = next(run for run in members if who[id(run)] == best)
        if count > 1 or len(counts) == 1:
            kept[cell] = [run for run in members if who[id(run)] == best]
        left += [Left(run.folder, _why(run, reference)) for run in members if run not in kept.get(cell, ())]
    if not kept:
        example = next(item for item in left if "the same" not in item.why)
        raise MetagenError(
            "the runs were judged on different episodes, no two on the same: compare those of one task and "
            f"data set, or name what tells folds apart with --within ({example.folder}: {example.why})"
        )
    return kept, left


def identity(run: FinishedRun, bank: bool = True) -> tuple[Any, ...]:
    """Return what two runs have in common that were judged on the same episodes, and (``bank``) images."""
    return *_episodes(run), _bank(run).get("sha256") if bank else None


def _episodes(run: FinishedRun) -> tuple[Any, ...]:
    return run.record["episodes"].get("sha256"), _test_classes(run)


def _bank(run: FinishedRun) -> dict[str, Any]:
    return (run.record.get("data") or {}).get("test") or {}


def _test_classes(run: FinishedRun) -> tuple[str, ...]:
    return tuple((run.record.get("split") or {}).get("test") or ())


def _why(run: FinishedRun, other: FinishedRun) -> str:
    """Say in what a run's episodes differ from the others'."""
    if identity(run) == identity(other):
        return "the same episodes as no other run"
    if _bank(run).get("sha256") != _bank(other).get("sha256"):
        return f"judged on other data ({_bank(run).get('name')}, the others on {_bank(other).get('name')})"
    if _test_classes(run) != _test_classes(other):
        ours, theirs = (_few(_test_classes(one)) for one in (run, other))
        return f"another split (tested on {ours}, the others on {theirs}; to pair within each, see --within)"
    task, others = run.record["task"], other.record["task"]
    for key in [key for key in task if key in others]:  # runs of earlier versions have fewer
        if task[key] != others[key]:
            return f"another task (task.{key}={task[key]}, the others {others[key]})"
    ours, theirs = (str(one.record["episodes"].get("sha256"))[:8] for one in (run, other))
    return f"other test episodes (sha256 {ours}, the others {theirs})"


def _few(names: Sequence[str]) -> str:
    return " ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def grouped(
    cells: dict[Cell, list[FinishedRun]], by: Sequence[str] | None = None, within: Sequence[str] = ()
) -> tuple[list[Group], list[Left]]:
    """Return the groups in the order of their first runs, and runs that are there twice.

    Args:
        cells: of :func:`comparable`.
        by: keys whose values make a group; by default the overrides that differ between runs, but for
            the seed, what ``within`` names and what changes no result.
        within: the keys of the cells.

    Raises:
        MetagenError: an unknown key, or a group that has two different runs of one seed in a cell.
    """
    runs = [run for members in cells.values() for run in members]
    _check_keys(runs, by or (), "--by")
    # The learner's name tells rows apart where each has been tuned by itself, so it stands first.
    keys = list(by) if by else sorted(told_apart(runs, within), key="learner".__ne__) or ["learner"]
    groups: dict[Cell, Group] = {}
    left: list[Left] = []
    for cell, members in cells.items():
        for run in members:
            labels = tuple(run.settings.get(key) for key in keys)
            new = Group(label(keys, labels), dict(zip(keys, labels, strict=True)), {})
            seeds = groups.setdefault(labels, new).cells.setdefault(cell, {})
            seed = run.record["seed"]
            if seed in seeds:
                run, other = _newer(run, seeds[seed], groups[labels])
                left.append(Left(other.folder, f"the same run as {run.folder}, which counts"))
            seeds[seed] = run
    named = telling(list(groups))
    shown = [keys[i] for i in named]
    return [
        group._replace(name=label(shown, [labels[i] for i in named])) for labels, group in groups.items()
    ], left


def telling(rows: Sequence[Cell]) -> list[int]:
    """Return the columns that suffice to tell ``rows`` apart: the last ones go first."""
    kept = list(range(len(rows[0])))
    for column in reversed(kept[1:]):
        fewer = [i for i in kept if i != column]
        if len({tuple(row[i] for i in fewer) for row in rows}) == len(rows):
            kept = fewer
    return kept


def told_apart(runs: Sequence[FinishedRun], within: Sequence[str] = ()) -> list[str]:
    """Return the overrides by which runs that are not the same differ."""
    overridden = {key for run in runs for key in overrides_of(run.record)} - WITHOUT_EFFECT - set(within)
    return [key for key in differing([run.settings for run in runs]) if key in overridden]


def _newer(run: FinishedRun, other: FinishedRun, group: Group) -> tuple[FinishedRun, FinishedRun]:
    """Return the one of two equal runs that counts, and the other: trained before evaluated, newer first.

    Raises:
        MetagenError: they are not equal.
    """
    if keys := told_apart([run, other]):
        raise MetagenError(
            f"{other.folder} and {run.folder} are both {group.name}, seed {run.record['seed']}, but differ "
            f"in {', '.join(keys)}: add that to --by, or leave --by out"
        )

    def rank(one: FinishedRun) -> tuple[bool, float]:
        return one.record["training"].get("seconds") is not None, (
            one.folder / "metrics.json"
        ).stat().st_mtime

    first, second = sorted((run, other), key=rank, reverse=True)
    return first, second


def _check_keys(runs: Sequence[FinishedRun], keys: Sequence[str], option: str) -> None:
    known = sorted({key for run in runs for key in run.settings} | {"seed"})
    for key in keys:
        if key not in known:
            raise MetagenError(f"{option} {key}: no run has an override of that name{nearest(key, known)}")
