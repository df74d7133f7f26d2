"""Paired differences in one picture."""

import math
import os
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metagen.report.pictures import write_figure

LENGTH = 40  # letters of a name

Difference = tuple[str, str, float, float | None]


def differences_plot(
    panels: Mapping[tuple[str, str, str | None], Sequence[Difference]], path: str | os.PathLike[str]
) -> None:
    """Draw differences with their intervals, a panel for each metric and a colour for each baseline.

    Args:
        panels: by metric (name, unit, which direction is better), rows ``(name, baseline, mean, ci95)``.
        path: PNG file to write.
    """
    columns = 2 if len(panels) in (2, 4) else min(3, max(1, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    most = max((len({row[0] for row in rows}) for rows in panels.values()), default=1)
    figure = Figure((4.4 * columns, (0.9 + 0.42 * most) * lines + 0.4), dpi=110, layout="constrained")
    colours = {
        name: f"C{i}" for i, name in enumerate(dict.fromkeys(r[1] for rows in panels.values() for r in rows))
    }
    for i, ((name, unit, better), rows) in enumerate(panels.items()):
        axes = figure.add_subplot(lines, columns, i + 1)
        names = list(dict.fromkeys(row[0] for row in rows))
        for label, baseline, mean, half in rows:
            shift = 0.22 * (list(colours).index(baseline) - (len(colours) - 1) / 2)
            at = names.index(label) + shift
            if math.isfinite(mean):
                axes.errorbar(
                    mean, at, xerr=half, color=colours[baseline], marker="o", markersize=4, capsize=3
                )
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set_yticks(range(len(names)), [short(text) for text in names], fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(name.replace("_", " ") + (f" ({better} is better)" if better else ""), fontsize=10)
        axes.set_xlabel(f"difference{f' ({unit})' if unit else ''}", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(alpha=0.3, axis="x")
        axes.spines[["top", "right", "left"]].set_visible(False)
    for name, colour in colours.items():
        figure.axes[0].plot([], [], color=colour, marker="o", label=f"minus {short(name)}")
    figure.legend(loc="outside upper center", ncols=max(1, min(4, len(colours))), fontsize=9, frameon=False)
    write_figure(path, figure)


def short(name: str) -> str:
    """Return a name that leaves room for a picture."""
    return name if len(name) <= LENGTH else name[: LENGTH - 1] + "…"
