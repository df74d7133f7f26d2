"""The tables of a comparison, as rows of cells."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from metagen.comparison.estimates import Estimate
from metagen.comparison.groups import Group
from metagen.comparison.paired_differences import Difference, Measure, difference, score
from metagen.comparison.payoff import payoff

Row = dict[str, Any]


class Table(NamedTuple):
    """A title, a caption that says what the numbers are, and rows (column to cell)."""

    title: str
    caption: str
    rows: list[Row]


def scores(
    groups: Sequence[Group], measures: Sequence[Measure], within: Sequence[str], budget: int | None
) -> Table:
    """Return a row for each group: its mean of every metric."""
    rows: list[Row] = []
    kinds: set[str] = set()
    for group in groups:
        row: Row = {**group.labels, "seeds": max(len(seeds) for seeds in group.cells.values())}
        if within:
            row["folds"] = len(group.cells)
        for measure in measures:
            found = score(group, measure, budget)
            row[measure.name] = found
            kinds |= {found["over"]} if found else set()
        rows.append(row)
    means = "Means" + (f" over the folds ({', '.join(within)}), seeds and episodes" if within else "")
    at = "" if budget is None else f" after at most {budget} adaptation steps"
    return Table("Scores", f"{means}{at} with 95 % intervals {_over(kinds)}.", rows)


def _over(kinds: Iterable[str]) -> str:
    found = set(kinds)
    if found == {"seeds"}:
        return "over seeds (Student's t)"
    if found == {"episodes"}:
        return "over the test episodes"
    return "over seeds (Student's t), over the test episodes where there is one seed"


def differences_table(found: Sequence[Difference], within: Sequence[str]) -> Table:
    """Return a row for each paired difference, corrected by Holm's method over all of them."""
    seeds, folds = (any(getattr(d, part) for d in found) for part in ("seeds", "folds"))
    rows = [_difference_row(d, seeds, folds) for d in found]
    folded = f", within each fold ({', '.join(within)})" if within else ""
    caption = (
        f"Row minus baseline, paired on identical test episodes{folded}; ± is the half-width of a "
        "95 % interval (Student's t) over episodes (of the mean over seeds"
        + ("; the folds are taken as given)" if within else ")")
        + (", over the seeds that both have" if seeds else "")
        + (", over folds" if folds else "")
        + f"; p is corrected by Holm's method over the {len(found)} differences of this table. "
        "The verdict is at 5 %, corrected."
    )
    return Table("Paired differences", caption, rows)


def _difference_row(found: Difference, seeds: bool, folds: bool) -> Row:
    row: Row = {
        "group": found.group.name,
        "against": found.against.name,
        "metric": found.measure.name,
        "difference ± episodes": summary(found.episodes),
    }
    row |= {"± seeds": summary(found.seeds)} if seeds else {}
    row |= {"± folds": summary(found.folds)} if folds else {}
    names = ["p episodes", *(["p seeds"] if seeds else []), *(["p folds"] if folds else [])]
    kept = [
        found.corrected[0],
        *([found.corrected[1]] if seeds else []),
        *([found.corrected[2]] if folds else []),
    ]
    return row | dict(zip(names, map(_p, kept), strict=True)) | {"verdict": found.verdict}


def summary(found: Estimate | None) -> Row | None:
    """Return an estimate as a table shows it."""
    return None if found is None else {"mean": found.mean, "ci95": found.ci95, "n": found.n}


def _p(value: float | None) -> str | None:
    if value is None:
        return None
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def budgets_of(groups: Sequence[Group], most: int | None) -> list[int]:
    """Return every number of steps at which a run was measured, up to ``most``."""
    found = {step for group in groups for run in group.runs() for step in run.steps}
    return sorted(step for step in found if most is None or step <= most)


def by_budget(
    pairs: Sequence[tuple[Group, Group]], measures: Sequence[Measure], budgets: Sequence[int]
) -> list[Table]:
    """Return the differences at every budget, and in how many of them all metrics are better at once."""
    rows, joint = [], []
    for group, against in pairs:
        everything: list[Difference] = []
        for measure in measures:
            found = [difference(group, against, measure, budget) for budget in budgets]
            known = [d for d in found if d is not None]
            if not known:
                continue
            everything += known
            cells = {
                f"{b} steps": summary(d.episodes) if d else None for b, d in zip(budgets, found, strict=True)
            }
            better = sum(d.better_over("episodes") for d in known)
            rows.append(
                {"group": group.name, "against": against.name, "metric": measure.name, **cells}
                | {"better at": f"{better} of {len(budgets)}"}
            )
        if everything:
            joint.append(_joint_row(group, against, everything, len(measures) * len(budgets)))
    return [
        Table(
            "Paired differences at every budget",
            "Row minus baseline after at most so many adaptation steps (a learner without steps has one "
            "value), ± 95 % over episodes, not corrected: see the next table.",
            rows,
        ),
        Table(
            "All metrics at every budget at once",
            "In how many of the metrics x budgets of the table before the 95 % interval of the paired "
            "difference lies on the better side of zero. That it does in all of them is a claim at 5 % "
            "without a correction for their number (an intersection-union test) for a row chosen beforehand.",
            joint,
        ),
    ]


def _joint_row(group: Group, against: Group, found: Sequence[Difference], count: int) -> Row:
    row: Row = {"group": group.name, "against": against.name}
    for part in ("episodes", "seeds", "folds"):
        if any(getattr(d, part) for d in found):
            row[f"over {part}"] = f"{sum(d.better_over(part) for d in found)} of {count}"
    done = all(d.better_over("episodes") for d in found) and len(found) == count
    return row | {"better in all (episodes)": "yes" if done else "no"}


def payoffs(pairs: Sequence[tuple[Group, Group]], measures: Sequence[Measure]) -> Table:
    """Return how soon each group is as good as a control's best, and when its meta-training pays off."""
    found = [payoff(group, control, m) for m in measures if m.better for group, control in pairs]
    return Table(
        "Until the control's best value",
        "Steps, seconds and FLOPs of adaptation an episode until a group's mean is as good as the best mean "
        "of the control's own curve (measured steps only; wall-clock times of the machines at hand), its "
        "meta-training in seconds, and the number of new tasks after which that (beyond the control's) is "
        "saved. Training that a run started from (checkpoint=FILE) is not counted. Metrics that a control's "
        "steps only worsen are left out.",
        [row for row in found if row is not None],
    )
