"""Adaptation of several learners in one picture."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from metagen.report.differences_plot import short
from metagen.report.pictures import write_figure

Line = Sequence[tuple[int, float, float | None, Mapping[str, Any]]]
AXES = ("adaptation steps", "seconds an episode", "FLOPs an episode")


def adaptation_curves(
    lines: Mapping[str, Line], panels: Mapping[str, tuple[str, str | None]], path: str | os.PathLike[str]
) -> None:
    """Draw every metric (a row each) over steps, seconds and, if known, FLOPs, a colour for each line.

    Args:
        lines: by name, points ``(step, seconds, FLOPs or None, {metric: {"mean", "ci95"}})``. A line of
            one point, of a learner without steps, goes on as a dotted level: it has that value at any budget.
        panels: by metric, its unit and which direction is better.
        path: PNG file to write.
    """
    rows, every = max(1, len(panels)), [p for line in lines.values() for p in line]
    shown = [column for column in range(len(AXES)) if any(p[column] is not None for p in every)] or [0]
    figure = Figure((4.2 * len(shown), 2.7 * rows + 0.9), dpi=110, layout="constrained")
    grid = figure.subplots(rows, len(shown), squeeze=False, sharey="row", sharex="col")
    for row, (name, (unit, better)) in enumerate(panels.items()):
        for place, column in enumerate(shown):
            axes = grid[row, place]
            for index, (line, points) in enumerate(lines.items()):
                _draw(axes, points, name, column, f"C{index % 10}", short(line), "o" if index < 10 else "s")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if row == rows - 1:
                axes.set_xlabel(AXES[column])
        title = name.replace("_", " ") + (f"\n({better} is better)" if better else "")
        _limit(grid[row, 0], [_numbers(p[3][name]) for p in every if name in p[3]])
        grid[row, 0].set_ylabel(title + (f", {unit}" if unit else ""), fontsize=9)
    for place, column in enumerate(shown):
        _scale(grid[0, place], [p[column] for p in every if p[column] is not None])
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(4, max(1, len(labels))),
        fontsize=9,
        frameon=False,
    )
    write_figure(path, figure)


def _scale(axes: Axes, values: Sequence[Any]) -> None:
    """Make an axis logarithmic but for its start, so that step 0 has its place."""
    positive = [value for value in values if value > 0]
    if positive:
        least = 1.0 if all(isinstance(value, int) for value in values) else min(positive)
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
        axes.set_xlim(left=0, right=1.15 * max(positive))
        # The usual ones are formulas, which texts of anybody's are not read for.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _limit(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Leave room for the means, and for intervals up to their span: those of two seeds may be endless."""
    known = np.array([point for point in points if np.isfinite(point[0])])
    if not len(known):
        return
    mean, half = known.T
    room = np.ptp(mean) or np.median(half) or 1.0
    low, high = max((mean - half).min(), mean.min() - room), min((mean + half).max(), mean.max() + room)
    axes.set_ylim(low - 0.08 * room, high + 0.08 * room)


def _draw(axes: Axes, points: Line, name: str, column: int, colour: str, label: str, marker: str) -> None:
    known = [(p[column], *_numbers(p[3][name])) for p in points if p[column] is not None and name in p[3]]
    if not known:
        # It stands in the legend, which is that of all panels.
        axes.plot([], [], color=colour, marker=marker, markersize=4, label=label)
        return
    at, mean, half = np.array(known, dtype=np.float64).T
    axes.fill_between(at, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0)
    axes.plot(at, mean, color=colour, marker=marker, markersize=4, label=label)
    if len(known) == 1:
        axes.axhline(mean[0], color=colour, linestyle=":", linewidth=1.2)
        axes.errorbar(at, mean, half, color=colour, capsize=3)


def _numbers(summary: Mapping[str, Any]) -> tuple[float, float]:
    mean, half = summary.get("mean"), summary.get("ci95")
    return float("nan") if mean is None else mean, 0.0 if half is None else half
