"""Scores of groups of runs, and their paired differences on the same episodes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metagen.comparison.estimates import Estimate, holm, stratified, student
from metagen.comparison.groups import Cell, Group
from metagen.errors import MetagenError, nearest
from metagen.runs.records import FinishedRun

CONTROLS = ("scratch", "transfer")


class Measure(NamedTuple):
    """A metric's name, unit (``"%"``, ``"nats"`` or none), and which direction is better, if it is known."""

    name: str
    unit: str
    better: str | None

    @property
    def sign(self) -> int:
        """-1 where lower is better, else 1."""
        return -1 if self.better == "lower" else 1


class Difference(NamedTuple):
    """Paired differences ``group - against``.

    episodes: over test episodes, averaged over the seeds; with folds, within each, which are taken as given.
    seeds:    over the seeds that both groups have; None for fewer than two.
    folds:    over the cells (folds); None for fewer than two.
    corrected: Holm's p values of the three, in this order, over a family of differences.
    """

    group: Group
    against: Group
    measure: Measure
    budget: int | None
    episodes: Estimate
    seeds: Estimate | None
    folds: Estimate | None
    corrected: tuple[float | None, ...] = (None, None, None)

    @property
    def verdict(self) -> str:
        """Whether the group is better or worse over episodes, corrected, and over seeds and folds as well."""
        if not np.isfinite(self.episodes.mean):
            return "undefined"
        parts = (("episodes", self.episodes), ("seeds", self.seeds), ("folds", self.folds))
        known = [(over, p) for (over, one), p in zip(parts, self.corrected, strict=True) if one is not None]
        shown = [over for over, p in known if p is not None and p < 0.05]
        if "episodes" not in shown:
            return "level"
        good = self.episodes.mean * self.measure.sign > 0
        word = ("better" if good else "worse") if self.measure.better else "differs"
        return word + (f" over {' and '.join(shown)} only" if len(shown) < len(known) else "")

    def better_over(self, part: str) -> bool:
        """Return whether the interval over ``part`` (episodes, seeds, folds) lies on the better side of 0.

        That is p < 0.05 in the right direction, but where all values are the same.
        """
        one: Estimate | None = getattr(self, part)
        return one is not None and one.p is not None and one.p < 0.05 and one.mean * self.measure.sign > 0


def measures(runs: Sequence[FinishedRun], wanted: Sequence[str] | None = None) -> list[Measure]:
    """Return the metrics of ``runs``, those named or all, the main one first.

    Raises:
        MetagenError: no run has a metric of that name.
    """
    main = next((run.record["main"] for run in runs if run.record.get("main")), None)
    names = dict.fromkeys([main] if main else [])
    names |= dict.fromkeys(name for run in runs for name in run.record["metrics"])
    contexts = {
        row["images"] for run in runs for row in (run.record.get("likelihood") or {}).get("contexts", ())
    }
    known = [*names, *(f"nll_t{t}" for t in sorted(contexts))]
    for name in wanted or ():
        if name not in known:
            hint = nearest(name, known) or f"; they have {', '.join(known)}"
            raise MetagenError(f"--metric {name}: the runs have no such metric{hint}")
    return [_measure(runs, name) for name in wanted or known]


def _measure(runs: Sequence[FinishedRun], name: str) -> Measure:
    if name.startswith("nll_t"):
        return Measure(name, "nats", "lower")
    record = next((run.record for run in runs if name in run.record["metrics"]), {})
    return Measure(name, record.get("units", {}).get(name, ""), record.get("better", {}).get(name))


def table_of(
    group: Group, cell: Cell, seeds: Iterable[int], name: str, budget: int | None
) -> np.ndarray | None:
    """Return a metric's values (seeds, episodes) in one cell; None where a run did not keep them."""
    found = [group.cells[cell][seed].values(name, budget) for seed in seeds]
    values = [one for one in found if one is not None]
    return np.stack(values) if values and len(values) == len(found) else None


def score(group: Group, measure: Measure, budget: int | None = None) -> dict[str, Any] | None:
    """Return a group's mean over cells, seeds and episodes with a 95 % interval; None without values.

    Returns:
        ``{"mean", "ci95", "n", "over"}``: the interval is Student's over ``"seeds"`` where there are two or
        more in every cell, else over ``"episodes"`` within the cells.
    """
    tables = [table_of(group, cell, seeds, measure.name, budget) for cell, seeds in group.cells.items()]
    if any(table is None for table in tables):
        return None
    known = [table for table in tables if table is not None]
    episodes, common = stratified([table.mean(0) for table in known]), group.seeds()
    if len(common) < 2:
        return {"mean": episodes.mean, "ci95": episodes.ci95, "n": episodes.n, "over": "episodes"}
    rows = [[list(seeds).index(seed) for seed in common] for seeds in group.cells.values()]
    seeds = student(np.mean([table[row].mean(1) for table, row in zip(known, rows, strict=True)], axis=0))
    return {"mean": episodes.mean, "ci95": seeds.ci95, "n": seeds.n, "over": "seeds"}


def difference(
    group: Group, against: Group, measure: Measure, budget: int | None = None
) -> Difference | None:
    """Return the paired differences over the cells that both have; None where nothing can be paired.

    In a cell, the seeds that both groups have are paired; where they share none, their means are.
    """
    deltas: dict[Cell, np.ndarray] = {}
    paired: dict[Cell, dict[int, float]] = {}
    for cell in [cell for cell in group.cells if cell in against.cells]:
        common = [seed for seed in group.cells[cell] if seed in against.cells[cell]]
        a = table_of(group, cell, common or group.cells[cell], measure.name, budget)
        b = table_of(against, cell, common or against.cells[cell], measure.name, budget)
        if a is None or b is None or a.shape[1] != b.shape[1]:
            return None
        deltas[cell] = a.mean(0) - b.mean(0)
        paired[cell] = dict(zip(common, (a - b).mean(1), strict=True)) if common else {}
    if not deltas:
        return None
    everywhere = set.intersection(*(set(found) for found in paired.values()))
    by_seed = [float(np.mean([found[seed] for found in paired.values()])) for seed in sorted(everywhere)]
    by_fold = [float(values.mean()) for values in deltas.values()]
    return Difference(
        group,
        against,
        measure,
        budget,
        stratified(list(deltas.values())),
        student(by_seed) if len(by_seed) > 1 else None,
        student(by_fold) if len(by_fold) > 1 else None,
    )


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """Return the differences with Holm's correction over all of them, for each kind of interval by itself."""
    parts = [
        holm([one.p if one is not None else None for one in kind])
        for kind in zip(*((d.episodes, d.seeds, d.folds) for d in found), strict=True)
    ]
    return [d._replace(corrected=p) for d, p in zip(found, zip(*parts, strict=True), strict=True)]


def baselines(groups: Sequence[Group], main: Measure, against: Sequence[str] | None = None) -> list[Group]:
    """Return the groups that the others are set against.

    By default those of ``learner=scratch`` and ``learner=transfer``, of several the best by ``main``, or,
    where there is none, the best group.

    Args:
        groups: all.
        main: the metric that tells which is best.
        against: names of groups, or values that one of their labels has; ``best``.

    Raises:
        MetagenError: no group has that name.
    """
    if against:
        named = [_named(groups, main, name) for name in against]
        return list({id(group): group for found in named for group in found}.values())
    controls = [[g for g in groups if g.runs()[0].settings.get("learner") == name] for name in CONTROLS]
    found = [best(members, main) for members in controls if members]
    return found or [best(groups, main)]


def _named(groups: Sequence[Group], main: Measure, name: str) -> list[Group]:
    found = [g for g in groups if g.name == name] or [g for g in groups if name in g.labels.values()]
    if not found and name == "best":
        return [best(groups, main)]
    if not found:
        known = [group.name for group in groups]
        hint = nearest(name, known) or f"; they are {', '.join(known[:10])}"
        raise MetagenError(f"--against {name}: no row has that name{hint}")
    return found


def best(groups: Sequence[Group], measure: Measure) -> Group:
    """Return the group with the best mean; one without a defined mean never is."""

    def rank(group: Group) -> float:
        found: Mapping[str, Any] = score(group, measure) or {}
        mean = found.get("mean")
        return -np.inf if mean is None or not np.isfinite(mean) else mean * measure.sign

    return max(groups, key=rank)
