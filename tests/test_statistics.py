import math

import numpy as np
import pytest
from scipy import stats

from metagen.statistics import summarize


def test_interval_is_students() -> None:
    x = np.random.default_rng(0).normal(3, 2, 25)
    got = summarize(list(x))
    low, high = stats.t.interval(0.95, 24, loc=x.mean(), scale=stats.sem(x))
    assert got == {"mean": pytest.approx(x.mean()), "ci95": pytest.approx((high - low) / 2), "n": 25}


def test_one_episode_has_no_interval_and_none_has_no_mean() -> None:
    assert summarize([2.0]) == {"mean": 2.0, "ci95": None, "n": 1}
    assert math.isnan(summarize([])["mean"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_undefined_episodes_are_reported_not_dropped(bad: float) -> None:
    got = summarize([1.0, bad, 3.0])
    assert math.isnan(got["mean"])
    assert (got["ci95"], got["n"], got["undefined"]) == (None, 3, 1)
