from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metagen.report.curves import curves_plot, is_geometric

PANELS = {"negative_elbo": ("negative elbo (lower is better)", "nats"), "diversity": ("diversity", "")}


@pytest.mark.parametrize(
    ("values", "geometric"),
    [
        ([1, 2, 4, 64], True),
        ([0.25, 0.5], True),
        ([1, 3, 50], True),
        ([1, 5, 10], False),
        ([0, 1, 2, 4], False),
        ([-1, 100], False),
        ([4], False),
        ([], False),
    ],
)
def test_a_logarithmic_axis_for_powers_of_two_or_a_large_span(values: list[float], geometric: bool) -> None:
    assert is_geometric(values) == geometric


def point(mean: float | None, ci95: float | None = 2.0) -> dict:
    return {"negative_elbo": {"mean": mean, "ci95": ci95, "n": 3}}


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def shows(path: Path, colour: tuple[int, int, int]) -> bool:
    a = np.asarray(Image.open(path)).astype(int)
    return bool((abs(a - colour).max(-1) < 40).any())


def test_lines_controls_and_gaps(tmp_path: Path) -> None:
    lines = {
        "learner=multitask": [
            (1.0, point(300.0)),
            (2.0, point(None, None)),
            (64.0, point(130.0)),
            (128.0, {}),
        ],
        "learner=scratch": [(None, point(150.0))],
    }
    for name in ("a", "b"):
        curves_plot(lines, PANELS, "task.train_count", "over seeds", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert shows(tmp_path / "a.png", BLUE)
    assert shows(tmp_path / "a.png", ORANGE)
    wide = Image.open(tmp_path / "a.png").width
    curves_plot(
        dict([*lines.items()][:1]), {"negative_elbo": PANELS["negative_elbo"]}, "x", "", tmp_path / "c.png"
    )
    assert not shows(tmp_path / "c.png", ORANGE)
    assert Image.open(tmp_path / "c.png").width < wide, "one panel a metric"


def test_one_point_and_many_points(tmp_path: Path) -> None:
    curves_plot({"": [(3.0, point(1.0))]}, PANELS, "x", "caption", tmp_path / "one.png")
    curves_plot(
        {"": [(float(i), point(i)) for i in range(40)]}, PANELS, "x", "caption", tmp_path / "many.png"
    )
