"""Copies are counted where a mean hides them."""

import math

import numpy as np
import pytest
import torch
from points import episode, points

from metagen.errors import MetagenError
from metagen.metrics.copies import Copies, SupportBias
from metagen.metrics.memorisation import Memorisation


def test_a_copier_is_caught() -> None:
    copier = episode(None)._replace(samples=episode(None).support.x.repeat(1, 4, 1, 1, 1))
    assert Copies()(copier) == SupportBias()(copier) == 100
    near = copier._replace(samples=copier.samples + 1e-3 * points(9, 20))
    assert Copies()(near) == SupportBias()(near) == 100


def test_real_images_score_five_and_fifty() -> None:
    for queries in (15, 60):
        runs = [episode(points(s, 60, dims=8), queries, s) for s in range(200)]
        for metric, expected in ((Copies(), 5), (SupportBias(), 50)):
            values = [metric(run) for run in runs]
            assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / math.sqrt(len(values)))


def test_the_threshold_is_the_quantile_of_the_ratio() -> None:
    outcome = episode(points(1, 50), queries=33)
    distance = lambda x: (x[:, :, None] - outcome.support.x[:, None]).flatten(3).norm(dim=-1).amin(-1)  # noqa: E731
    scale = distance(outcome.query.x).mean(1, keepdim=True)
    real = (distance(outcome.query.x) / scale).flatten().sort().values
    threshold = real[9]  # rank 10 of 99 is the quantile 0.1
    expected = 100 * (distance(outcome.samples) / scale <= threshold).double().mean()
    assert Copies(quantile=0.1)(outcome) == pytest.approx(float(expected))
    assert expected > 0


def test_a_few_copies_among_wild_images_do_not_hide() -> None:
    """One in four is a copy and the others are far away: the mean ratio says 'new'."""
    outcome = episode(None)
    samples = torch.cat([outcome.support.x, points(5, 15) * 3], 1)
    assert Memorisation()(outcome._replace(samples=samples)) > 1
    assert Copies()(outcome._replace(samples=samples)) >= 25


def test_support_bias_is_blind_to_smooth_images() -> None:
    """The mean of all images is nearer to the support than real ones are, and is no copy."""
    runs = [episode(torch.zeros(3, 4, 1, 1, 64), 60, s) for s in range(40)]
    assert np.mean([Copies()(run) for run in runs]) > 90
    assert np.mean([SupportBias()(run) for run in runs]) == pytest.approx(50, abs=15)


def test_a_tie_is_half_a_copy() -> None:
    real = episode(points(1, 5))
    assert SupportBias()(real._replace(query=real.query._replace(x=real.support.x))) == 50


def test_undefined_values() -> None:
    assert math.isnan(Copies()(episode(points(1, 5), queries=6)))
    assert not math.isnan(Copies()(episode(points(1, 5), queries=7)))
    assert math.isnan(SupportBias()(episode(points(1, 5), queries=4)))
    real = episode(points(1, 5))
    copies = real._replace(query=real.query._replace(x=real.support.x.repeat(1, 8, 1, 1, 1)))
    assert math.isnan(Copies()(copies))
    for metric in (Copies(), SupportBias()):
        assert math.isnan(metric(episode(points(1, 5) * torch.nan)))


@pytest.mark.parametrize("quantile", [0, 1, -0.1, 5])
def test_bad_arguments_are_errors(quantile: float) -> None:
    with pytest.raises(MetagenError, match="quantile"):
        Copies(quantile=quantile)
