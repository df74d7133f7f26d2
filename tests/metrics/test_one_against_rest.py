"""One new class told from the known ones: real data score high, what shows nothing of the class is blind."""

import pytest
import torch

from metagen.core.episode import Shots
from metagen.core.metric import Outcome
from metagen.data.digits import Digits
from metagen.data.untested_classes import untested_classes
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.metrics.one_against_rest import OneAgainstRest

BANK = Digits(split="digits_789").load()


def shots(x):
    y = torch.arange(x.shape[0])[:, None].expand(x.shape[:2])
    return Shots(x, y, rng.key(0))


def images(label, rows):
    found = (BANK.labels == label).nonzero()[rows, 0]
    return (BANK.images[found].float() / 255)[None, :]


def outcome(samples, label=3):
    rest = untested_classes(BANK, {BANK.names[label]})
    support, query = shots(images(label, slice(0, 5))), shots(images(label, slice(60, 120)))
    return Outcome(support, query, torch.tensor([label]), torch.tensor(0.0), samples=samples, others=rest)


def test_real_images_score_high_and_better_than_few():
    real = outcome(images(3, slice(5, 55)))
    assert OneAgainstRest()(real) > 90
    assert OneAgainstRest()(real) > OneAgainstRest(images="support")(real)
    assert OneAgainstRest(images="real")(real) > 90


def test_copies_of_the_support_score_as_the_support():
    copied = outcome(images(3, slice(0, 5)).repeat(1, 10, 1, 1, 1))
    assert OneAgainstRest()(copied) == pytest.approx(OneAgainstRest(images="support")(copied), abs=2)


def test_samples_of_another_class_score_low():
    assert OneAgainstRest()(outcome(images(8, slice(5, 55)))) < 60


def test_samples_that_are_not_finite_are_undefined():
    assert torch.isnan(torch.tensor(OneAgainstRest()(outcome(images(3, slice(0, 5)) * torch.nan))))


def test_without_other_images_it_is_refused():
    alone = outcome(images(3, slice(5, 55)))._replace(others=None)
    with pytest.raises(MetagenError, match="cas_rest"):
        OneAgainstRest()(alone)
    with pytest.raises(MetagenError, match="decay"):
        OneAgainstRest(0.0)


def test_others_are_disjoint_and_of_other_classes():
    learn, test = untested_classes(BANK, {"3"}, each=10)
    assert learn.shape == test.shape == (9, 10, *BANK.images.shape[1:])
    for one, two in zip(learn, test, strict=True):
        assert not (one[:, None] == two[None]).flatten(2).all(-1).any()
    with pytest.raises(MetagenError, match="all classes"):
        untested_classes(BANK, set(BANK.names))
    with pytest.raises(MetagenError, match="leave them out"):
        untested_classes(BANK, {"3"}, each=1000)
