"""Pictures of the guide, from committed records only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metagen.report.curves import curves_plot

PREFERRED = ("recognised", "accuracy", "negative_elbo", "cross_entropy", "diversity", "memorisation")
CAPTION = "Means over test episodes with 95 % intervals; a learner that takes no steps is a level line"


def adaptation_plot(records: Mapping[str, Mapping[str, Any]], path: Path) -> bool:
    """Draw quality over adaptation steps, a line for each record; return whether there was anything to draw.

    Args:
        records: by label.
        path: PNG file to write.
    """
    curves = {label: one["adaptation"] for label, one in records.items() if one.get("adaptation")}
    if not any(len(points) > 1 for points in curves.values()):
        return False
    measured = {m for points in curves.values() for point in points for m in point["metrics"]}
    units = {m: unit for one in records.values() for m, unit in one.get("units", {}).items()}
    panels = {m: (m.replace("_", " "), units.get(m, "")) for m in PREFERRED if m in measured}
    if not panels:
        panels = {m: (m.replace("_", " "), units.get(m, "")) for m in sorted(measured)[:4]}
    lines = {
        label: [(_x(points, p), _defined(p["metrics"])) for p in points] for label, points in curves.items()
    }
    curves_plot(lines, panels, "adaptation steps", CAPTION, path)
    return True


def _x(points: Any, point: Mapping[str, Any]) -> float | None:
    return None if len(points) == 1 else point["step"]


def _defined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found for name, found in metrics.items() if found.get("mean") is not None}
