"""A classifier of generated images: what it learns, from what, and that it repeats itself."""

import math

import numpy as np
import pytest
import torch
from points import episode, points
from scipy.optimize import minimize
from torch import Tensor

from metagen.core.metric import Outcome
from metagen.data.digits import Digits
from metagen.data.sampler import EpisodeSampler
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.metrics.classification_accuracy_score import (
    AugmentedScore,
    ClassificationAccuracyScore,
    _moved,
)


def digits(index: int = 0, shots: int = 5, queries: int = 20) -> Outcome:
    """Return an episode of three real digits, whose samples are other real ones."""
    bank = Digits(split="digits_789").load()
    sampler = EpisodeSampler(bank, list("0123456"), 3, shots, queries + 20, 0, "test")
    drawn = sampler.episodes(torch.tensor([index]))
    support, query = ([leaf[0] for leaf in part] for part in drawn[:2])
    query, samples = (
        type(drawn.query)(query[0][:, :queries], query[1][:, :queries], query[2]),
        query[0][:, queries:],
    )
    return Outcome(type(query)(*support), query, torch.arange(3), torch.tensor(0.0), None, samples)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [digits(index) for index in range(6)]


def mean(metric, outcomes: list[Outcome]) -> float:
    return float(np.mean([metric(outcome) for outcome in outcomes]))


def test_agrees_with_another_optimiser() -> None:
    away = 1.5 * torch.eye(3, 4, dtype=torch.float64).view(3, 1, 1, 1, 4)
    outcome = episode(points(1, 6, dims=4) + away, queries=100)
    outcome = outcome._replace(query=outcome.query._replace(x=outcome.query.x + away))
    train, test = (x.flatten(2).flatten(0, 1) for x in (outcome.samples, outcome.query.x))
    y = torch.arange(3).repeat_interleave(6)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(theta).requires_grad_()
        logits = train @ w[:12].view(3, 4).T + w[12:]
        loss = torch.nn.functional.cross_entropy(logits, y) + 0.1 / 2 * w[:12].square().sum()
        loss.backward()
        return float(loss.detach()), w.grad.numpy()

    theta = torch.from_numpy(minimize(objective, np.zeros(15), jac=True, method="BFGS").x)
    right = (test @ theta[:12].view(3, 4).T + theta[12:]).argmax(-1) == outcome.query.y.flatten()
    expected = 100 * float(right.double().mean())
    assert ClassificationAccuracyScore(decay=0.1)(outcome) == pytest.approx(expected)
    assert 50 < expected < 95
    assert ClassificationAccuracyScore(decay=10)(outcome) != pytest.approx(expected)


def test_real_samples_teach_what_real_images_teach(outcomes: list[Outcome]) -> None:
    best = mean(ClassificationAccuracyScore(images="real"), outcomes)
    assert best > 90
    assert mean(ClassificationAccuracyScore(), outcomes) > best - 2
    swapped = [outcome._replace(samples=outcome.samples.roll(1, 0)) for outcome in outcomes]
    assert mean(ClassificationAccuracyScore(), swapped) < 10


def test_a_copier_scores_what_the_support_scores(outcomes: list[Outcome]) -> None:
    copier = [o._replace(samples=o.support.x.repeat(1, 8, 1, 1, 1)) for o in outcomes]
    for one, other in zip(copier, outcomes, strict=True):
        assert ClassificationAccuracyScore()(one) == ClassificationAccuracyScore(images="support")(other)


def test_augmentation_helps_where_images_are_few_and_moved() -> None:
    runs = [digits(index, shots=1) for index in range(8)]
    moved = [o._replace(query=o.query._replace(x=_moved(o.query.x, rng.key(7)))) for o in runs]
    assert mean(AugmentedScore(), moved) > mean(ClassificationAccuracyScore(images="support"), moved)


def test_blank_images_teach_nothing(outcomes: list[Outcome]) -> None:
    blank = outcomes[0]._replace(samples=torch.zeros(3, 8, 1, 28, 28))
    assert ClassificationAccuracyScore()(blank) == pytest.approx(100 / 3)


def test_the_real_score_trains_on_what_it_does_not_test(outcomes: list[Outcome]) -> None:
    """Every class shows one picture in the first half and its neighbour's in the second."""
    picture = outcomes[0].support.x[:, :1]
    query = torch.cat([picture.expand(-1, 10, -1, -1, -1), picture.roll(1, 0).expand(-1, 10, -1, -1, -1)], 1)
    outcome = outcomes[0]._replace(query=outcomes[0].query._replace(x=query))
    assert ClassificationAccuracyScore(images="real")(outcome) == 0


def test_moves_are_small_different_and_repeat_themselves() -> None:
    x = torch.zeros(1, 200, 1, 28, 28)
    x[..., 12:16, 12:16] = 1
    moved = _moved(x, rng.key(1))
    assert torch.equal(moved, _moved(x, rng.key(1)))
    assert not torch.equal(moved, _moved(x, rng.key(2)))
    place = torch.arange(28) + 0.5
    mass = moved.sum((2, 3, 4))
    for dim in (3, 4):
        centre = (moved.sum(7 - dim).squeeze(2) * place).sum(-1) / mass - 14
        assert 1.5 < centre.abs().max() < 2.3
        assert centre.mean().abs() < 0.3
    assert (mass / 16).min() > 0.7
    assert (mass / 16).max() < 1.35


def test_moves_turn_by_up_to_ten_degrees() -> None:
    x = torch.zeros(1, 200, 1, 28, 28, dtype=torch.float64)
    x[..., 13:15, 4:24] = 1
    image = _moved(x, rng.key(1))[0, :, 0]
    place = torch.arange(28, dtype=torch.float64) + 0.5
    mass = image.sum((1, 2))
    row, column = ((image.sum(dim) * place).sum(-1) / mass for dim in (2, 1))
    both = torch.einsum("bij,i,j->b", image, place, place) / mass - row * column
    wide = torch.einsum("bij,j->b", image, place**2) / mass - column**2
    slope = torch.rad2deg((both / wide).atan())
    assert 9 < slope.max() < 11
    assert -11 < slope.min() < -9


def test_repeats_itself_and_leaves_the_global_random_state_alone(outcomes: list[Outcome]) -> None:
    def state() -> tuple[Tensor, float]:
        return torch.rand(2), float(np.random.get_state()[1].sum())

    torch.manual_seed(3)
    expected = state()
    torch.manual_seed(3)
    metrics = (
        ClassificationAccuracyScore(),
        ClassificationAccuracyScore(images="support"),
        AugmentedScore(count=7),
        ClassificationAccuracyScore(images="real"),
    )
    first = [metric(outcomes[0]) for metric in metrics]
    found = state()
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]
    assert [metric(outcomes[0]) for metric in metrics] == first


def test_undefined_values(outcomes: list[Outcome]) -> None:
    outcome = outcomes[0]
    assert math.isnan(ClassificationAccuracyScore()(outcome._replace(samples=outcome.samples * torch.nan)))
    assert math.isnan(ClassificationAccuracyScore()(outcome._replace(samples=outcome.samples[:1])))
    one = outcome._replace(query=outcome.query._replace(x=outcome.query.x[:, :1]))
    assert math.isnan(ClassificationAccuracyScore(images="real")(one))


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(MetagenError, match=r"decay=0: expected"):
        ClassificationAccuracyScore(decay=0, images="support")
    with pytest.raises(MetagenError, match="count=0"):
        AugmentedScore(count=0)
