"""The comparison of runs: from folders to tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metagen.comparison.groups import Group, comparable, grouped
from metagen.comparison.paired_differences import Measure, baselines, corrected, difference, measures
from metagen.comparison.tables import Table, budgets_of, by_budget, differences_table, payoffs, scores
from metagen.runs.records import FinishedRun, Left, collect, short_of


class Options(NamedTuple):
    """What ``metagen compare`` is asked for.

    by:      keys whose values make a row; default: the overrides that differ, but for the seed.
    metrics: which; default all.
    against: rows that the others are set against; default scratch and transfer, else the best.
    within:  keys, such as ``data.split``, within whose values runs are paired.
    budget:  the number of adaptation steps; default: as many as each run took.
    budgets: also the differences at every measured number of steps up to ``budget``.
    """

    by: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    against: Sequence[str] | None = None
    within: Sequence[str] = ()
    budget: int | None = None
    budgets: bool = False


class Comparison(NamedTuple):
    """What was compared, the tables, and what was left out."""

    groups: list[Group]
    pairs: list[tuple[Group, Group]]
    measures: list[Measure]
    tables: list[Table]
    left: list[Left]
    notes: list[str]


def comparison(folders: Sequence[Path], options: Options) -> Comparison:
    """Collect the runs below ``folders``, group them over seeds, and pair them.

    Raises:
        MetagenError: there is no finished run, none can be compared, or an option names what is not there.
    """
    runs, left = collect(folders)
    cells, other = comparable(runs, options.within)
    groups, twice = grouped(cells, options.by, options.within)
    left += other + twice
    known = measures([run for group in groups for run in group.runs()], options.metrics)
    against = baselines(groups, known[0], options.against)
    pairs = _once([(group, control) for control in against for group in groups if group is not control])
    at = [difference(*pair, measure, options.budget) for pair in pairs for measure in known]
    deltas = corrected([d for d in at if d is not None])
    tables = [scores(groups, known, options.within, options.budget)]
    notes = [*_about(groups, known), *_notes(groups, options), *_unmeasured(groups, known, options)]
    notes += _short(groups)
    tables += [differences_table(deltas, options.within)] if deltas else []
    if options.budgets:
        tables += by_budget(pairs, known, budgets_of(groups, options.budget))
    tables += [payoffs(pairs, known)]
    return Comparison(groups, pairs, known, [t for t in tables if t.rows], left, notes)


def _about(groups: Sequence[Group], known: Sequence[Measure]) -> list[str]:
    """Say what each metric is, as a record of it tells."""
    about: dict[str, str] = {}
    for run in (run for group in groups for run in group.runs()):
        about |= run.record.get("about") or {}
    return [f"{measure.name}: {about[measure.name]}" for measure in known if measure.name in about]


def _unmeasured(groups: Sequence[Group], known: Sequence[Measure], options: Options) -> list[str]:
    """Name the metrics that are asked for after fewer steps, but were measured after the last one only."""
    notes = []
    for group in groups:
        run = group.runs()[0]
        steps = [] if run.lacks_steps(options.budget, options.budgets) else _early(run, options)
        lacking = [one.name for one in known if any(_lacks(run, one.name, step) for step in steps)]
        if lacking:
            notes.append(
                f"{group.name} has {', '.join(lacking)} after its last step only: metagen evaluate RUN "
                "curves=all measures it after fewer, too"
            )
    return notes


def _early(run: FinishedRun, options: Options) -> list[int]:
    """Return the numbers of steps before a run's last one at which its values are asked for."""
    last, budget = max(run.steps, default=0), options.budget
    if not options.budgets and (budget is None or budget >= last):
        return []
    below = [step for step in run.steps if step < last and (budget is None or step <= budget)]
    return below if options.budgets else below[-1:]


def _lacks(run: FinishedRun, name: str, budget: int) -> bool:
    return run.values(name) is not None and run.values(name, budget) is None


def _short(groups: Sequence[Group]) -> list[str]:
    """Name the runs that take part although their training ended before its steps."""
    found = [(run.folder, short_of(run.record)) for group in groups for run in group.runs()]
    return [f"short: {folder} has {short}" for folder, short in found if short is not None]


def _once(pairs: Sequence[tuple[Group, Group]]) -> list[tuple[Group, Group]]:
    """Return the pairs without those of two baselines that are there the other way round."""
    kept: list[tuple[Group, Group]] = []
    for a, b in pairs:
        if not any(a is d and b is c for c, d in kept):
            kept.append((a, b))
    return kept


def _notes(groups: Sequence[Group], options: Options) -> list[str]:
    """Say which groups lack a fold, or a budget's values."""
    cells = list(dict.fromkeys(cell for group in groups for cell in group.cells))
    notes, wanted = [], options.budgets or options.budget is not None
    for group in groups:
        if missing := [cell for cell in cells if cell not in group.cells]:
            names = "; ".join(" ".join(str(value) for value in cell) for cell in missing)
            notes.append(
                f"{group.name} has no run in {names}: its means are over the other folds; "
                "differences are over the folds that both have"
            )
        if wanted and any(run.lacks_steps(options.budget, options.budgets) for run in group.runs()):
            notes.append(
                f"{group.name} has no values of its episodes before its last step: it was made by an earlier "
                "version; metagen evaluate RUN makes them"
            )
    return notes
