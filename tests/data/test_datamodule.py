import itertools

import pytest
import torch

from metagen.data.datamodule import EpisodeData
from metagen.data.digits import Digits
from metagen.data.task import FewShot, Supervised

pytest_plugins = ["data_fixtures"]
pytestmark = pytest.mark.usefixtures("cache")


def few_shot():
    return FewShot("generate", ways=3, shots=2, queries=2, batch=4, episodes=7, val_episodes=4, eval_batch=3)


def module(task=None, **options):
    data = EpisodeData(Digits(), task or few_shot(), **options)
    data.setup("fit")
    return data


def images(batches):
    return [batch.query.x for batch in batches]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_setup_loads_once():
    data = module()
    streams = data.streams
    data.setup("test")
    assert data.streams is streams
    assert data.test_bank is data.bank


def test_training_goes_on_from_the_first_step():
    whole = images(itertools.islice(module().train_dataloader(), 6))
    data = module()
    data.first_step = 4
    assert equal(whole[4:], images(itertools.islice(data.train_dataloader(), 2)))


def test_training_stops_before_steps():
    data = module(steps=5)
    data.first_step = 2
    loader = data.train_dataloader()
    assert len(loader) == 3
    assert len(list(loader)) == 3


def test_without_steps_training_has_no_length():
    with pytest.raises(TypeError):
        len(module().train_dataloader())


def test_evaluation_is_the_same_each_time():
    data = module()
    (val,) = data.val_dataloader()
    test = data.test_dataloader()
    assert (len(val), len(test)) == (2, 3)
    assert equal(images(val), images(val))
    assert equal(images(test), images(test))
    assert sum(len(x) for x in images(test)) == 7


def test_supervised_epochs_follow_each_other():
    data = module(Supervised(10, batch=500))
    loader = data.train_dataloader()
    assert len(loader) == 3
    first, second = images(loader), images(loader)
    assert len(first) == len(second) == 3
    assert not equal(first, second)
    data.first_step = 4
    assert equal(second[1:], images(data.train_dataloader()))
    assert data.val_dataloader() == []


def test_other_test_data():
    data = module(test_data=Digits(size=28))
    assert data.test_bank.name == "digits"
