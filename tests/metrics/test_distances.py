"""FID and KID: against matrix square roots, explicit kernels and closed forms."""

import math

import numpy as np
import pytest
import torch
from points import episode, points
from scipy.linalg import sqrtm
from torch import Tensor

from metagen.metrics.features import halves
from metagen.metrics.fid import Fid
from metagen.metrics.kid import Kid


def pooled(outcome) -> list[np.ndarray]:
    return [part.flatten(0, 1).numpy() for part in halves(outcome)]


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x.T), np.cov(y.T)
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * sqrtm(a @ b).real))


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Sums over pairs, written out."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n = len(x)
    own = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(n) for j in range(n) if i != j) / (
        n * (n - 1)
    )
    return own - 2 * sum(kernel(a, b) for a in x for b in y) / n**2


def skewed(seed: int, count: int, dims: int = 5) -> Tensor:
    x = points(seed, count, dims)
    return x * torch.linspace(0.5, 2, dims) + 0.3 * x.roll(1, -1) + 0.4


def test_fid_agrees_with_the_matrix_square_root() -> None:
    outcome = episode(skewed(1, 20))
    real, other, samples = pooled(outcome)
    assert Fid()(outcome) == pytest.approx(frechet(real, samples), rel=1e-6)
    assert Fid(images="real")(outcome) == pytest.approx(frechet(real, other), rel=1e-6)


def test_fid_in_more_dimensions_than_images_is_that_of_the_singular_values() -> None:
    """tr (S S')^(1/2) is the nuclear norm of X Y^T / (n - 1): no square root of a singular matrix."""
    outcome = episode(skewed(1, 4, dims=50), queries=8)
    real, _, samples = pooled(outcome)
    a, b = (x - x.mean(0) for x in (real, samples))
    traces = (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")
    expected = np.sum((real.mean(0) - samples.mean(0)) ** 2) + traces / (len(a) - 1)
    assert Fid()(outcome) == pytest.approx(expected, rel=1e-5)


def test_fid_of_a_shift_is_its_square() -> None:
    outcome = episode(None)
    shifted = outcome._replace(samples=outcome.query.x[:, :20] + torch.tensor([3.0, 4.0]))
    assert Fid()(shifted) == pytest.approx(25, rel=1e-6)
    assert Fid()(outcome._replace(samples=outcome.query.x)) == pytest.approx(0, abs=1e-6)


def test_kid_agrees_with_the_explicit_kernel() -> None:
    outcome = episode(skewed(1, 10), queries=20)
    real, other, samples = pooled(outcome)
    assert Kid()(outcome) == pytest.approx(mmd(real, samples))
    assert Kid(images="real")(outcome) == pytest.approx(mmd(real, other))


def test_real_images_score_at_the_floor_and_a_constant_far_above() -> None:
    runs = [episode(points(s, 20), seed=s) for s in range(40)]
    for metric, floor in ((Fid(), Fid(images="real")), (Kid(), Kid(images="real"))):
        own, real = ([m(run) for run in runs] for m in (metric, floor))
        spread = np.std(own) + np.std(real)
        assert abs(np.mean(own) - np.mean(real)) < spread / 3
        assert metric(episode(torch.zeros(3, 20, 1, 1, 2))) > np.mean(real) + 3 * spread
    values = [Kid(images="real")(run) for run in runs]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values)), "the estimator has no bias"


def test_equal_numbers_of_each_class_take_kid_below_zero_and_its_floor_with_it() -> None:
    apart = 3 * torch.eye(3, dtype=torch.float64).view(3, 1, 1, 1, 3)
    found = []
    for seed in range(60):
        outcome = episode(points(seed, 10, dims=3) + apart, 20, seed)
        outcome = outcome._replace(query=outcome.query._replace(x=outcome.query.x + apart))
        found.append((Kid()(outcome), Kid(images="real")(outcome)))
    own, real = np.array(found).T
    error = np.std(own - real) / math.sqrt(len(real))
    assert np.mean(real) < -3 * np.std(real) / math.sqrt(len(real))
    assert abs(np.mean(own - real)) < 3 * error


@pytest.mark.parametrize("metric", [Fid(), Kid()], ids=lambda m: m.name)
def test_repeats_itself_and_leaves_the_global_random_state_alone(metric) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = metric(episode(skewed(1, 20)))
    assert torch.equal(torch.rand(2), expected)
    assert metric(episode(skewed(1, 20))) == pytest.approx(first)


@pytest.mark.parametrize("metric", [Fid(), Kid()], ids=lambda m: m.name)
def test_undefined_with_one_image_or_no_finite_one(metric) -> None:
    assert math.isnan(metric(episode(points(1, 1))))
    assert math.isnan(metric(episode(points(1, 20), queries=3)))
    assert math.isnan(metric(episode(points(1, 20) * torch.inf)))
