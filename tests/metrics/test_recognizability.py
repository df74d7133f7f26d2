"""Recognizability and diversity in features: real drawings at the floor, copies and strangers caught."""

import math

import pytest
import torch

from metagen.core.episode import Shots
from metagen.core.metric import Outcome
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.metrics.recognizability import FeatureDiversity, Originality, Recognizability

N, Q, M = 4, 40, 40


class Pixels:
    """A judge whose features are the pixels."""

    def features(self, x):
        return x.flatten(1)


def drawings(seed, count, spread=0.3):
    """Gaussian clouds around a corner of the cube for each class."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(N, count, 1, 2, 2, generator=generator, dtype=torch.float64)
    return torch.eye(4, dtype=torch.float64).reshape(N, 1, 1, 2, 2) * 3 + spread * noise


def outcome(samples, query=None, judge=None):
    query = drawings(1, Q) if query is None else query
    y = torch.arange(N)[:, None]
    shots = Shots(query, y.expand(N, query.shape[1]), rng.key(0))
    support = Shots(drawings(0, 1), y, rng.key(0))
    return Outcome(support, shots, torch.arange(N), torch.tensor(0.0), judge or Pixels(), samples)


def test_real_drawings_are_recognised_and_as_diverse():
    real = outcome(drawings(2, M))
    assert Recognizability()(real) == Recognizability(images="real")(real) == 100
    assert FeatureDiversity()(real) == pytest.approx(1, abs=0.1)


def test_drawings_of_another_class_are_not_recognised_and_mixtures_are_by_their_share():
    assert Recognizability()(outcome(drawings(2, M).roll(1, 0))) == 0
    mixed = torch.cat([drawings(2, M // 2), drawings(2, M // 2).roll(1, 0)], 1)
    assert Recognizability()(outcome(mixed)) == 50


def test_one_drawing_a_class_is_recognised_but_not_diverse():
    constant = drawings(2, 1).expand(-1, M, -1, -1, -1)
    assert Recognizability()(outcome(constant)) == 100
    assert FeatureDiversity()(outcome(constant)) == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_measured_is_undefined_or_refused():
    alone = outcome(drawings(2, 1), query=drawings(1, 1))
    assert math.isnan(Recognizability(images="real")(alone))
    assert math.isnan(FeatureDiversity()(alone))
    with pytest.raises(MetagenError, match="judge=protonet"):
        Recognizability()(outcome(drawings(2, M), judge=lambda x: x))


def test_the_prototype_may_be_the_image_that_was_seen():
    strange = outcome(drawings(2, M), query=drawings(1, Q).roll(1, 0))
    assert Recognizability()(strange) == 0
    assert Recognizability(prototype="support")(strange) == 100
    assert Recognizability("real", "support")(strange) == 0, "real ones are held against it, too"
    with pytest.raises(MetagenError, match="prototype=seen: expected one of unseen, support"):
        Recognizability(prototype="seen")


def test_copies_are_not_original_and_real_drawings_are():
    copies = outcome(drawings(0, 1).expand(-1, M, -1, -1, -1))
    assert Originality()(copies) == 0
    assert Originality()(outcome(drawings(2, M))) == pytest.approx(1, abs=0.1)
    far = outcome(drawings(0, 1) + 2 * (drawings(2, M) - drawings(0, 1)))
    assert Originality()(far) == pytest.approx(2, abs=0.2)
