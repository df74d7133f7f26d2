"""A picture of metrics over a number that was varied from run to run."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metagen.report.pictures import write_figure

Line = Sequence[tuple[float | None, Mapping[str, Any]]]


def curves_plot(
    lines: Mapping[str, Line],
    panels: Mapping[str, tuple[str, str]],
    x: str,
    caption: str,
    path: str | os.PathLike[str],
) -> None:
    """Draw each metric over x with its intervals, one panel a metric.

    Args:
        lines: by label, points ``(x, {metric: {"mean", "ci95"}})``; one whose x is None is drawn as a
            level line. A metric that a point lacks, or whose mean is undefined, leaves a gap.
        panels: by metric, its title and its unit.
        x: what the axis shows; logarithmic where :func:`is_geometric`.
        caption: says over what the intervals are; stands above the panels.
        path: PNG file to write.
    """
    columns = 2 if len(panels) == 4 else min(3, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure((max(5.4, 4.2 * columns), 3.3 * rows + 0.6), dpi=110, layout="constrained")
    figure.suptitle(caption, fontsize=9, color="0.35", wrap=True)
    ticks = sorted({at for line in lines.values() for at, _ in line if at is not None})
    for i, (name, (title, unit)) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        if is_geometric(ticks):
            axes.set_xscale("log", base=2)
        for colour, (label, line) in enumerate(lines.items()):
            _draw(axes, line, name, f"C{colour}", label)
        if len(ticks) <= 12:
            axes.set_xticks(ticks, [f"{tick:.6g}" for tick in ticks], fontsize=8)
            axes.minorticks_off()
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(unit or "ratio")
        axes.set_xlabel(x)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if i == 0 and any(lines):
            axes.legend(fontsize=8, frameon=False)
    write_figure(path, figure)


def is_geometric(values: Iterable[float]) -> bool:
    """Return whether a logarithmic axis suits ``values``: powers of two, or a span of more than 20 times."""
    found = sorted(set(values))
    if len(found) < 2 or found[0] <= 0:
        return False
    return found[-1] > 20 * found[0] or all(math.frexp(value)[0] == 0.5 for value in found)


def _draw(axes: Axes, line: Line, name: str, colour: str, label: str) -> None:
    """Draw one line, and its control as a level one."""
    known = [(at, found[name]) for at, found in line if name in found]
    points = [(at, *_numbers(summary)) for at, summary in known if at is not None]
    if points:
        at, mean, half = np.array(points).T
        axes.errorbar(at, mean, half, color=colour, marker="o", markersize=4, capsize=3, label=label)
    for mean, half in (_numbers(summary) for at, summary in known if at is None):
        axes.axhspan(mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(mean, color=colour, linestyle="--", linewidth=1.5, label=label)


def _numbers(summary: Mapping[str, Any]) -> tuple[float, float]:
    """Return mean and half-width; NaN and 0 where they are undefined."""
    mean, half = summary.get("mean"), summary.get("ci95")
    return math.nan if mean is None else mean, 0.0 if half is None else half
