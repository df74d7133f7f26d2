"""Tables for the terminal and for Markdown."""

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from metagen.console import printable

Summary = Mapping[str, Any]


def number(value: float | None, ci95: float | None = None) -> str:
    """Format ``mean ± ci95`` with two significant digits of the half-width, or four of a lone value."""
    if value is None or not math.isfinite(value):
        return "undefined"
    scale = value if ci95 is None or not math.isfinite(ci95) or ci95 <= 0 else ci95
    digits = 2 if scale is ci95 else 4
    places = 0 if scale == 0 else min(6, max(0, digits - 1 - math.floor(math.log10(abs(scale)))))
    text = f"{value:.{places}f}"
    return text if ci95 is None or not math.isfinite(ci95) else f"{text} ± {ci95:.{places}f}"


class Said(NamedTuple):
    """What is said of a metric beside its values: its unit, which direction is better, real images' score."""

    unit: str = ""
    better: str = ""
    real: float | None = None


def metrics_table(metrics: Mapping[str, Summary], said: Mapping[str, Said]) -> str:
    """Return a terminal table: one line per metric with its mean, 95 % half-width, what is said of it, and n.

    Args:
        metrics: name to ``{"mean", "ci95", "n"}``.
        said: of each metric.
    """
    head = ["metric", "mean ± 95 %", "unit", "better", "real images", "episodes"]
    rows = [
        [
            name.replace("_", " "), number(s["mean"], s.get("ci95")), said[name].unit, said[name].better,
            "-" if said[name].real is None else number(said[name].real), str(s.get("n", "")),
        ]
        for name, s in metrics.items()
    ]  # fmt: skip
    return _terminal(head, rows, [True, False, True, True, False, False])


def legend(about: Mapping[str, str]) -> str:
    """Return what each metric is: a line each, of text that may be anybody's."""
    width = max(map(len, about), default=0)
    return "\n".join(
        f"{printable(name.replace('_', ' ')):<{width}}  {printable(text)}" for name, text in about.items()
    )


def likelihood_table(summary: Mapping[str, Any]) -> str:
    """Return a terminal table of a likelihood's summary: a line per context."""
    leaky = {row["images"]: row for row in summary["with_replacement_leaky"]}
    rows = [
        {"context images": str(row["images"]), f"nll ({summary['kind']}, nats)": _mean(row)}
        | ({"with replacement (leaky)": _mean(leaky[row["images"]])} if leaky else {})
        for row in summary["contexts"]
    ]
    return comparison_table(rows)[0]


def _mean(row: Summary) -> Summary:
    return {key: row[key] for key in ("mean", "ci95", "n")}


def comparison_table(
    rows: Sequence[Mapping[str, Any]], escape: Callable[[str], str] | None = None
) -> tuple[str, str]:
    """Return one table of several runs, (for the terminal, in Markdown).

    Args:
        rows: a run each, column to cell, where a summary ``{"mean", "ci95", "n"}`` is shown as
            ``mean ± ci95`` and anything else as it is. Columns stand in the order of their first
            appearance; a cell that a run lacks is a dash.
        escape: makes a cell of a text in Markdown; by default :func:`markdown`, for texts of anybody's.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    text = [not any(isinstance(row.get(c), Mapping | int | float) for row in rows) for c in columns]
    head = [name.replace("_", " ") for name in columns]
    mark = ["| " + " | ".join(map(escape or markdown, line)) + " |" for line in (head, *cells)]
    mark.insert(1, "|" + "|".join(":---" if left else "---:" for left in text) + "|")
    return _terminal(head, cells, text), "\n".join(mark) + "\n"


def cell(value: Any) -> str:
    """Return the text of a table's cell; see :func:`comparison_table`."""
    if isinstance(value, Mapping):
        return number(value.get("mean"), value.get("ci95"))
    if isinstance(value, float):
        return number(value)
    return "-" if value is None else printable(str(value))


def markdown(text: str) -> str:
    """Return a text as it stands in Markdown: no HTML, no link, no picture, no end of a cell or of a line."""
    return re.sub(r"[\\`|\[\]]", r"\\\g<0>", html.escape(" ".join(text.splitlines()), quote=False))


def _terminal(head: list[str], rows: list[list[str]], left: list[bool]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines.insert(1, ["─" * width for width in widths])
    return "\n".join(
        "  ".join(
            c.ljust(w) if a else c.rjust(w) for c, w, a in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )
