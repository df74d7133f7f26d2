"""The pay-off of meta-training: how soon a learner is as good as a control, and after how many tasks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metagen.comparison.groups import Group
from metagen.comparison.paired_differences import Measure


class PayoffPoint(NamedTuple):
    """A group after so many adaptation steps: means over its runs, seconds and FLOPs an episode."""

    step: int
    seconds: float
    flops: float | None
    means: dict[str, float]


def path(group: Group, names: Sequence[str]) -> list[PayoffPoint]:
    """Return a group's adaptation at the numbers of steps that all of its runs were measured at."""
    curves = [{point["step"]: point for point in run.record.get("adaptation", ())} for run in group.runs()]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [_point([curve[step] for curve in curves], step, names) for step in steps]


def _point(found: Sequence[Any], step: int, names: Sequence[str]) -> PayoffPoint:
    flops = [point.get("flops") for point in found]
    means = {
        name: float(np.mean([_mean(point["metrics"][name]) for point in found]))
        for name in names
        if all(name in point["metrics"] for point in found)
    }
    seconds = float(np.mean([point["seconds"] for point in found]))
    return PayoffPoint(step, seconds, None if None in flops else float(np.mean(flops)), means)


def _mean(summary: Any) -> float:
    return float("nan") if summary.get("mean") is None else float(summary["mean"])


def training_seconds(group: Group) -> float | None:
    """Return what one run's training took on average; None where a run was evaluated only."""
    found = [run.record["training"].get("seconds") for run in group.runs()]
    return None if None in found else float(np.mean(found))


def payoff(group: Group, control: Group, measure: Measure) -> dict[str, Any] | None:
    """Return when a group reaches a control's best value, and what that saves.

    The control's best is the best mean of its own curve; a group reaches it at the first measured number of
    steps at which its mean is as good. Its meta-training has paid off after

        (training seconds - the control's) / (the control's seconds to its best - the group's)

    new tasks (one test episode each), 0 where it cost no more, and never where nothing is saved. All
    times are wall-clock of the machines the runs were made on.

    Returns:
        A table's row; None without curves of this metric, or where the control's steps only worsen it.
    """
    ours, theirs = (path(one, [measure.name]) for one in (group, control))
    known = [p for p in theirs if np.isfinite(p.means.get(measure.name, np.nan))]
    ours = [p for p in ours if measure.name in p.means]
    if not known or not ours:
        return None
    goal = max(known, key=lambda p: (p.means[measure.name] * measure.sign, -p.step))
    if goal.step == 0 and len(known) > 1:
        return None
    there = next(
        (p for p in ours if p.means[measure.name] * measure.sign >= goal.means[measure.name] * measure.sign),
        None,
    )
    costs = [training_seconds(one) for one in (group, control)]
    return {
        "group": group.name,
        "until the best of": control.name,
        "metric": measure.name,
        "value": goal.means[measure.name],
        "its steps": goal.step,
        "its seconds": goal.seconds,
        "its FLOPs": _si(goal.flops),
        "steps": there.step if there else "never",
        "seconds": there.seconds if there else "never",
        "FLOPs": _si(there.flops) if there else "never",
        "training seconds": costs[0],
        "pays off after (tasks)": _tasks(costs, goal, there),
    }


def _tasks(costs: Sequence[float | None], goal: PayoffPoint, there: PayoffPoint | None) -> int | str | None:
    if there is None:
        return "never"
    if costs[0] is None or costs[1] is None:
        return None
    extra, saved = costs[0] - costs[1], goal.seconds - there.seconds
    if extra <= 0 <= saved:
        return 0
    return "never" if saved <= 0 else int(np.ceil(max(extra, 0.0) / saved))


def _si(flops: float | None) -> str | None:
    return None if flops is None else f"{flops:.2e}"
