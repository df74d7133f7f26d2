from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from metagen.report import pictures
from metagen.report.pictures import adaptation_plot, predictions_grid, samples_grid

METRICS = {
    "recognised": SimpleNamespace(unit="%", better="higher"),
    "memorisation": SimpleNamespace(unit="", better="higher"),
}


def flat(n: int, k: int, value: int, size: int = 28) -> np.ndarray:
    return np.full((n, k, size, size), value, np.uint8)


def count(path: Path, value: int) -> float:
    """Area of one grey level in tiles of 28 x 28 images."""
    a = np.asarray(Image.open(path).convert("RGB"))
    return float((a == value).all(-1).sum() / (2 * 28) ** 2)


def test_samples_grid_shows_every_image_once(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    samples_grid(flat(3, 5, 201), flat(3, 9, 99), ["0", "1", "2"], path)
    assert count(path, 201) == pytest.approx(15, rel=0.01)
    assert count(path, 99) == pytest.approx(27, rel=0.01)


def test_the_support_lies_left_of_the_gap(tmp_path: Path) -> None:
    samples_grid(flat(2, 3, 201), flat(2, 3, 99), ["0", "1"], tmp_path / "a.png")
    a = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))[60]
    left, right = np.flatnonzero((a == 201).all(-1)), np.flatnonzero((a == 99).all(-1))
    assert right[0] - left[-1] > 20


def test_many_classes_and_images_are_capped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    names = [f"a very long name of an alphabet / character {i}" for i in range(30)]
    samples_grid(flat(30, 1, 201), flat(30, 40, 99), names, path)
    assert count(path, 99) == pytest.approx(pictures.MAX_ROWS * pictures.MAX_IMAGES, rel=0.01)


@pytest.mark.parametrize("size", [8, 28, 105])
def test_images_are_large_enough_to_see(tmp_path: Path, size: int) -> None:
    samples_grid(flat(1, 1, 201, size), flat(1, 1, 99, size), ["0"], tmp_path / "a.png")
    a = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (a == 99).all(-1).sum() >= 42**2


def test_only_wrong_predictions_are_framed(tmp_path: Path) -> None:
    right = np.arange(3)[:, None].repeat(4, 1)
    wrong = right.copy()
    wrong[1, 2] = 0
    for name, predicted in (("right", right), ("wrong", wrong)):
        predictions_grid(flat(3, 1, 201), flat(3, 4, 99), predicted, list("abc"), tmp_path / f"{name}.png")
        a = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert (a == pictures.RED).all(-1).any() == (name == "wrong")


@pytest.mark.parametrize("steps", [1, 2, 60])
def test_adaptation_plot_takes_any_number_of_steps_and_gaps(tmp_path: Path, steps: int) -> None:
    curve = [
        {
            "step": i,
            "seconds": 0.1,
            "metrics": {
                "recognised": {"mean": 50.0 + i, "ci95": 2.0, "n": 9},
                "memorisation": {"mean": float("nan"), "ci95": None, "n": 9},
            },
        }
        for i in range(steps)
    ]
    for name in ("a", "b"):
        adaptation_plot(curve, METRICS, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").width > 600
