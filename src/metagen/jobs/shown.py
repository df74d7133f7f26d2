"""The table that is shown after a test: few rows, each beside what real images score."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metagen.core.metric import Metric
from metagen.report.tables import Said, Summary, legend, metrics_table

ROWS = 8
"""Metrics that are shown; all of them are in the record."""
REAL = "_real"
"""The end of the name under which a metric is taken of real images."""


def table_of(
    metrics: Mapping[str, Metric], summary: Mapping[str, Summary], judge: Any, folder: Path
) -> Iterator[str]:
    """Yield the table, what each metric of it is, and where the others are.

    What a metric ``coverage_real`` measured stands beside ``coverage`` and has no row of its own.

    Args:
        metrics: by name, the main one first.
        summary: name to ``{"mean", "ci95", "n"}``.
        judge: that judged the samples, or None.
        folder: of the run.
    """
    paired = {name for name in metrics if name.endswith(REAL) and name.removesuffix(REAL) in metrics}
    single = [name for name in metrics if name not in paired]
    shown, left = single[:ROWS], single[ROWS:]
    said = {
        name: Said(metrics[name].unit, metrics[name].better, _real(name, metrics, summary, judge))
        for name in shown
    }
    yield metrics_table({name: summary[name] for name in shown}, said)
    yield legend({name: metrics[name].about for name in shown})
    if left:
        names = ", ".join(name.replace("_", " ") for name in left)
        yield f"{len(left)} more ({names}): {folder / 'metrics.json'}, or metagen compare {folder} --out PAGE"


def _real(
    name: str, metrics: Mapping[str, Metric], summary: Mapping[str, Summary], judge: Any
) -> float | None:
    measured = summary.get(name + REAL)
    return metrics[name].real_score(judge) if measured is None else measured["mean"]
