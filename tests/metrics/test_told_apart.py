"""A critic tells what differs in unseen classes, and nothing where nothing does."""

import math

import pytest
import torch

from metagen.core.episode import Shots
from metagen.core.metric import Outcome
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.metrics.told_apart import ToldApart

N, Q, S = 6, 12, 12
QUICK = {"steps": 60, "batch": 32, "width": 8}


def bars(seed, count, long=6, ways=N):
    """An upright bar at a random place, for each class of the same statistics."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(ways, count, 1, S, S)
    for n in range(ways):
        for k in range(count):
            row, column = torch.randint(0, S - 7, (2,), generator=generator)
            x[n, k, 0, row : row + long, column] = 1
    return x


def outcome(samples, first=0, ways=N, queries=Q):
    y = torch.arange(ways)[:, None]
    support = Shots(bars(first, 1, ways=ways), y, rng.key(0))
    query = Shots(bars(first + 1, queries, ways=ways), y.expand(ways, queries), rng.key(0))
    return Outcome(support, query, y[:, 0] + first, torch.tensor(0.0), samples=samples)


def test_drawings_of_the_same_law_are_not_told_apart():
    metric = ToldApart(**QUICK)
    found = metric.conclude([metric.gather(outcome(bars(20 + i, Q), 100 * i)) for i in range(8)])
    assert len(found) == 8
    assert sum(found) / 8 == pytest.approx(50, abs=8)


def test_shorter_strokes_are_told_and_copies_of_the_support_are_told():
    metric = ToldApart(**QUICK)
    for make in (lambda i: bars(20 + i, Q, long=3), lambda i: bars(100 * i, 1).expand(-1, Q, -1, -1, -1)):
        found = metric.conclude([metric.gather(outcome(make(i), 100 * i)) for i in range(8)])
        assert sum(found) / 8 > 85


def test_real_drawings_are_the_floor():
    metric = ToldApart("real", **QUICK)
    found = metric.conclude([metric.gather(outcome(None, 100 * i)) for i in range(8)])
    assert sum(found) / 8 == pytest.approx(50, abs=10)


def test_greys_are_not_seen_and_the_global_state_stays():
    grey = (bars(5, Q) * 0.7).clamp(0, 1)
    before = torch.get_rng_state()
    metric = ToldApart(**{**QUICK, "steps": 3})
    assert metric(outcome(grey)) == metric(outcome(bars(5, Q)))
    assert torch.equal(before, torch.get_rng_state())
    other = ToldApart(**{**QUICK, "steps": 3}, black_and_white=False)
    assert int(other.gather(outcome(grey)).other.max()) == 178


def test_what_cannot_be_measured_is_undefined_or_refused():
    metric = ToldApart(**{**QUICK, "steps": 3})
    assert math.isnan(metric(outcome(bars(5, Q, ways=1), ways=1)))
    bad = bars(5, Q)
    bad[0, 0, 0, 0, 0] = math.nan
    found = metric.conclude([metric.gather(outcome(x)) for x in (bad, bars(5, Q))])
    assert [math.isnan(value) for value in found] == [True, False]
    assert math.isnan(ToldApart("real", **{**QUICK, "steps": 3})(outcome(None, queries=1)))
    with pytest.raises(MetagenError, match=r"ToldApart: steps=0"):
        ToldApart(steps=0)
    with pytest.raises(MetagenError, match="needs samples"):
        metric.check(outcome(None))
