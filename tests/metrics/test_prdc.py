"""Precision, recall, density and coverage: against scikit-learn, closed forms, and known failures."""

import math

import numpy as np
import pytest
import torch
from points import episode, points
from sklearn.neighbors import NearestNeighbors

from metagen.errors import MetagenError
from metagen.metrics.features import halves
from metagen.metrics.prdc import (
    Coverage,
    Density,
    Precision,
    Recall,
)


def by_neighbours(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """The definitions, by scikit-learn's nearest neighbours."""
    near_real, near_fake = (NearestNeighbors(n_neighbors=k + 1).fit(x) for x in (real, fake))
    real_radius, fake_radius = near_real.kneighbors(real)[0][:, k], near_fake.kneighbors(fake)[0][:, k]
    around_fake = [near_real.radius_neighbors([y], 1e9, sort_results=True) for y in fake]
    around_real = [near_fake.radius_neighbors([x], 1e9, sort_results=True) for x in real]
    of_fake = [(d[0] < real_radius[i[0]]).sum() for d, i in around_fake]
    of_real = [(d[0] < fake_radius[i[0]]).sum() for d, i in around_real]
    nearest = near_fake.kneighbors(real, n_neighbors=1)[0][:, 0]
    return {
        "precision": 100 * np.mean(np.array(of_fake) > 0),
        "recall": 100 * np.mean(np.array(of_real) > 0),
        "density": np.sum(of_fake) / (k * len(fake)),
        "coverage": 100 * np.mean(nearest < real_radius),
    }


@pytest.mark.parametrize(
    "metric", [Precision(k=3), Recall(k=3), Density(k=3), Coverage(k=3)], ids=lambda m: m.name
)
def test_agrees_with_nearest_neighbours(metric) -> None:
    outcome = episode(1.3 * points(5, 30, dims=6) + 0.6, queries=50)
    real, _, samples = (part.numpy() for part in halves(outcome))
    assert real.shape == samples.shape == (3, 25, 6)
    expected = [by_neighbours(real[n], samples[n], 3)[metric.name] for n in range(3)]
    assert metric(outcome) == pytest.approx(np.mean(expected))
    assert min(expected) < max(expected), "the classes are to be averaged"


def test_real_images_score_what_the_theory_says() -> None:
    """Naeem et al., equations 8 and 9: the mean over episodes of real images."""
    k, c = 5, 20
    expected = 1 - math.prod(c - i for i in range(1, k + 1)) / math.prod(2 * c - i for i in range(1, k + 1))
    found = {
        m.name: [m(episode(points(s, c), 2 * c, s)) for s in range(150)]
        for m in (Coverage(k, "real"), Density(k, "real"))
    }
    assert expected == pytest.approx(0.9798, abs=1e-4)
    assert np.mean(found["coverage_real"]) == pytest.approx(100 * expected, abs=0.5)
    assert np.mean(found["density_real"]) == pytest.approx(1, abs=0.04)


def test_floors_judge_the_second_half_and_not_the_samples() -> None:
    outcome = episode(points(1, 20) + 100)
    second = outcome.query.x[:, 20:]
    for metric in (Precision, Recall, Density, Coverage):
        assert metric()(outcome) == 0
        assert metric(images="real")(outcome) == metric()(outcome._replace(samples=second)) > 0
    assert Coverage(images="relative")(outcome) == 0
    assert Coverage(images="relative")(outcome._replace(samples=second)) == 1


def test_a_constant_generator_is_precise_and_covers_nothing() -> None:
    constant = episode(torch.zeros(3, 20, 1, 1, 2))
    assert Precision()(constant) == 100
    assert Recall()(constant) == 0
    # one point lies in some balls, and in no more with more samples
    assert Coverage()(constant) < 70 < 90 < Coverage(images="real")(constant)
    edge = episode(points(1, 1).expand(-1, 20, -1, -1, -1) + 1.5)
    assert Coverage()(edge) < 40


def test_samples_are_compared_at_the_count_of_the_real_ones() -> None:
    few, many = points(1, 64), points(1, 64)
    many[:, 20:] += 100
    assert Coverage()(episode(few)) == Coverage()(episode(many)), "only the first 20 count"
    parts = halves(episode(points(1, 7)))
    assert [part.shape[1] for part in parts] == [7, 7, 7]
    assert torch.equal(torch.cat(parts[:2], 1), episode(points(1, 7)).query.x[:, :14].flatten(2))


@pytest.mark.parametrize(("queries", "samples"), [(11, 64), (40, 5)])
def test_undefined_with_no_more_than_k_images(queries: int, samples: int) -> None:
    assert math.isnan(Coverage(k=5)(episode(points(1, samples), queries)))
    assert not math.isnan(Coverage(k=4)(episode(points(1, samples), queries)))


def test_a_generator_that_diverged_is_undefined() -> None:
    assert math.isnan(Density()(episode(points(1, 20) * torch.nan)))
    assert Density(images="real")(episode(points(1, 20) * torch.nan)) > 0.5


def test_features_are_computed_once_an_episode() -> None:
    outcome = episode(points(1, 20))
    for metric in (Precision(), Recall(), Coverage(images="relative")):
        metric(outcome)
    assert outcome.judge.asked == 2  # of the query images and of the samples
    other = outcome._replace(samples=points(2, 20))
    assert Precision()(other) == Precision()(episode(points(2, 20)))
    assert outcome.judge.asked == 3


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(MetagenError, match=r"k=0: expected"):
        Coverage(k=0, images="real")
    with pytest.raises(MetagenError, match="features"):
        Coverage()(episode(points(1, 20))._replace(judge=lambda x: x))
