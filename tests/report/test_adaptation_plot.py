from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from metagen.report.adaptation_plot import _scale, adaptation_curves
from metagen.report.differences_plot import differences_plot, short

PANELS = {"recognised": ("%", "higher"), "diversity": ("", None)}


def line(flops: float | None, steps: tuple[int, ...] = (0, 1, 10)) -> list:
    one = {"recognised": {"mean": 50.0, "ci95": 500.0}, "diversity": {"mean": None, "ci95": None}}
    return [(step, 0.1 * step, flops and flops * step, one) for step in steps]


def test_a_column_for_each_cost_that_is_known(tmp_path: Path) -> None:
    adaptation_curves({"maml": line(1e6), "amortized": line(1e6, (0,))}, PANELS, tmp_path / "a.png")
    adaptation_curves({"maml": line(None), "old": line(None)}, PANELS, tmp_path / "b.png")
    adaptation_curves({"lacks it": [(0, 0.1, None, {})]}, PANELS, tmp_path / "c.png")
    wide, narrow = (Image.open(tmp_path / f"{name}.png").width for name in "ab")
    assert wide == pytest.approx(1.5 * narrow, rel=0.02), "three columns, and two without FLOPs"


def test_numbers_of_a_logarithmic_axis_are_numbers() -> None:
    axes = Figure().add_subplot()
    _scale(axes, [0, 1, 10, 100])
    texts = [axes.xaxis.get_major_formatter()(value) for value in (0, 1, 10, 100, 2.5e9)]
    assert texts == ["0", "1", "10", "100", "2.5e+09"]


def test_equal_differences_give_equal_pictures(tmp_path: Path) -> None:
    rows = [("maml" * 40, "scratch", 3.0, 1.0), ("reptile", "scratch", float("nan"), None)]
    for name in "ab":
        differences_plot({("recognised", "%", "higher"): rows}, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(short("maml" * 40)) == 40
