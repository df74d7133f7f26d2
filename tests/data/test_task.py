import dataclasses
import logging

import pytest
import torch
from data_samples import toy_bank

from metagen.data import pixels
from metagen.data.split import Split
from metagen.data.task import FewShot, Supervised
from metagen.errors import MetagenError

NAMES = tuple("abcdefgh")
SPLIT = Split(tuple("abcd"), (), tuple("efg"))
WITH_VAL = Split(tuple("abc"), ("d", "h"), tuple("efg"))


def bank(held=5, name="toy", size=4, classes=8):
    return toy_bank((20,) * classes, held, size, name)


def few_shot(**options):
    base = {"kind": "classify", "ways": 2, "shots": 1, "queries": 2, "batch": 4, "episodes": 7}
    return FewShot(**base | {"val_episodes": 5, "eval_batch": 3} | options)


def drawn(stream, episodes=200):
    draw = stream.sampler.draw(torch.arange(episodes))
    return torch.cat([draw.support, draw.query], -1).unique()


def names_of(stream):
    b = stream.bank
    return {b.names[label] for label in b.labels[drawn(stream)]}


def test_training_never_ends_and_the_rest_has_its_episodes():
    streams = few_shot().streams(bank(), None, SPLIT, seed=0)
    assert streams.train.batches is None
    with pytest.raises(TypeError):
        len(streams.train)
    assert streams.train.batch(10**6).classes.shape == (4, 2)
    assert (len(streams.val), len(streams.test)) == (2, 3)
    assert [streams.test.batch(i).classes.shape[0] for i in range(3)] == [3, 3, 1]
    with pytest.raises(IndexError):
        streams.test.batch(3)
    assert streams.split == {"train": SPLIT.train, "val": (), "test": SPLIT.test}


def test_batches_hold_the_numbered_episodes():
    streams = few_shot().streams(bank(), None, SPLIT, seed=0)
    expected = streams.train.sampler.episodes(torch.arange(8, 12))
    assert torch.equal(streams.train.batch(2).query.x, expected.query.x)


def test_who_sees_which_images():
    streams = few_shot().streams(bank(), None, WITH_VAL, seed=0)
    for stream, names, held in zip(streams, ("abc", "dh", "efg"), (False, True, True), strict=False):
        assert names_of(stream) == set(names)
        assert (stream.bank.held[drawn(stream)] == held).all()


def test_without_validation_classes_held_images_of_the_training_classes():
    val = few_shot().streams(bank(), None, SPLIT, seed=0).val
    assert names_of(val) == set("abcd")
    assert val.bank.held[drawn(val)].all()
    assert val.sampler.symmetry.max() == 0


def test_without_held_images_all_of_the_unseen_classes():
    streams = few_shot().streams(bank(held=0), None, WITH_VAL, seed=0)
    assert len(drawn(streams.test, 2000)) == 60


def test_a_generator_is_validated_on_as_many_classes_as_there_are():
    streams = few_shot(kind="generate", ways=3).streams(bank(), None, WITH_VAL, seed=0)
    assert [stream.batch(0).classes.shape[1] for stream in streams[:3]] == [3, 2, 3]
    with pytest.raises(MetagenError, match=r"val stage on toy needs task\.ways=3 classes but has 2"):
        few_shot(ways=3).streams(bank(), None, WITH_VAL, seed=0)


def test_nothing_to_validate_on():
    says = r"no held-out images to validate on: set task\.val_classes=\[\.\.\.\], another data\.split, or"
    with pytest.raises(MetagenError, match=says):
        few_shot().streams(bank(held=0), None, SPLIT, seed=0)
    assert few_shot(val_episodes=0).streams(bank(held=0), None, SPLIT, seed=0).val is None


def test_runs_of_other_seeds_are_judged_on_the_same_episodes():
    a, b = (few_shot().streams(bank(), None, WITH_VAL, seed=seed) for seed in (0, 1))
    assert a.test.fingerprint() == b.test.fingerprint()
    assert a.val.fingerprint() == b.val.fingerprint()
    assert not torch.equal(a.train.batch(0).query.x, b.train.batch(0).query.x)
    other = few_shot(eval_seed=1).streams(bank(), None, WITH_VAL, seed=0)
    assert other.test.fingerprint() != a.test.fingerprint()
    assert (a.test.seed, other.test.seed) == (0, 1)


def test_symmetries_in_training_only_unless_asked():
    streams = few_shot().streams(bank(), None, WITH_VAL, seed=0)
    assert [len(stream.classes) for stream in streams[:3]] == [24, 2, 3]
    streams = few_shot(symmetries=False, symmetries_eval=True).streams(bank(), None, WITH_VAL, seed=0)
    assert [len(stream.classes) for stream in streams[:3]] == [3, 16, 24]


def test_queries_and_ways_of_the_evaluation():
    streams = few_shot(test_queries=3, test_ways=3).streams(bank(), None, WITH_VAL, seed=0)
    assert [stream.batch(0).query.y.shape[1:] for stream in streams[:3]] == [(2, 2), (2, 2), (3, 3)]


def test_a_generator_is_tested_on_fewer_classes_where_there_are_fewer():
    split = Split(tuple("abcdefg"), (), ("h",))
    drawn = few_shot(kind="generate").streams(bank(), None, split, seed=0).test.batch(0)
    assert drawn.query.y.shape[1] == 1
    with pytest.raises(MetagenError, match=r"task\.test_ways=2 classes but has 1"):
        few_shot(kind="classify").streams(bank(), None, split, seed=0)


def test_overrides():
    streams = few_shot(test_classes=["a", "b"]).streams(bank(), None, SPLIT, seed=0)
    assert names_of(streams.test) == {"a", "b"}
    assert names_of(streams.train) == set(NAMES) - {"a", "b"}
    with pytest.raises(MetagenError, match="overlap in 'a'"):
        few_shot(test_classes=["a", "b"], train_classes=["a", "c"]).streams(bank(), None, SPLIT, seed=0)
    with pytest.raises(MetagenError, match="names the class 'z'"):
        few_shot(test_classes=["a", "z"]).streams(bank(), None, SPLIT, seed=0)


def counted(n, seed=0, **options):
    return few_shot(train_count=n, **options).streams(bank(), None, WITH_VAL, seed)


def test_some_of_the_training_classes():
    for seed in range(5):
        orders = [counted(n, seed, ways=1).split["train"] for n in (1, 2, 3)]
        assert [len(order) for order in orders] == [1, 2, 3]
        assert orders[2][:1] == orders[0]
        assert orders[2][:2] == orders[1], "the classes of a larger count contain those of a smaller one"
        assert set(orders[2]) == set("abc")
    assert len({counted(1, seed, ways=1).split["train"] for seed in range(20)}) == 3, "drawn by the seed"
    streams = counted(2, symmetries=False)
    assert names_of(streams.train) == set(streams.split["train"]) == set(streams.train.classes)
    assert streams.split["val"] == WITH_VAL.val


def test_how_many_classes_are_trained_on_changes_no_test():
    runs = [counted(n, seed) for n in (None, 1, 2) for seed in (0, 1)]
    assert len({run.test.fingerprint() for run in runs}) == 1
    assert len({run.val.fingerprint() for run in runs}) == 1
    assert runs[0].split["train"] == WITH_VAL.train


def test_validation_on_the_classes_that_are_trained_on():
    streams = few_shot(train_count=2).streams(bank(), None, SPLIT, seed=0)
    assert names_of(streams.val) == set(streams.split["train"])
    assert streams.val.bank.held[drawn(streams.val)].all()


def test_too_few_or_too_many_training_classes():
    with pytest.raises(
        MetagenError, match=r"task\.train_count=4 but the split has 3 training classes: lower it"
    ):
        counted(4)
    with pytest.raises(MetagenError, match=r"train stage on toy needs task\.ways=2 classes but has 1"):
        counted(1, symmetries=False)
    assert len(counted(1).train.classes) == 8, "its rotations and reflections"


def foreign(size=4):
    other = bank(name="other", size=size, classes=10)
    if size == 4:
        other = dataclasses.replace(other, images=255 - other.images)
    return dataclasses.replace(other, names=tuple("0123456789"))


def test_other_test_data():
    streams = few_shot().streams(bank(), foreign(), SPLIT, seed=0)
    assert streams.test.bank.name == "other"
    assert names_of(streams.test) == set("0123456789")
    assert streams.split == {"train": SPLIT.train, "val": (), "test": tuple("0123456789")}
    assert names_of(few_shot(test_classes=[7, 8]).streams(bank(), foreign(), SPLIT, 0).test) == {"7", "8"}


def test_other_test_data_that_do_not_fit(caplog):
    with pytest.raises(MetagenError, match=r"\(1, 4, 4\) and \(1, 5, 5\).*: set data\.size"):
        few_shot().streams(bank(), foreign(size=5), SPLIT, seed=0)
    with pytest.raises(MetagenError, match="names the class 'a', which other does not have"):
        few_shot(test_classes=["a"]).streams(bank(), foreign(), SPLIT, seed=0)
    twin = dataclasses.replace(foreign(), names=(*NAMES, "8", "9"))
    with caplog.at_level(logging.WARNING):
        few_shot().streams(bank(), twin, SPLIT, seed=0)
    assert "4 test classes of other have the name of a training class" in caplog.text


def test_the_same_data_given_twice_are_one():
    streams = few_shot().streams(bank(), bank(), SPLIT, seed=0)
    assert names_of(streams.test) == set("efg")


def test_audit_tells_what_was_drawn():
    test = few_shot(symmetries_eval=True).streams(bank(), None, SPLIT, seed=0).test
    audit = test.audit()
    assert audit["support"].shape == (7, 2, 1)
    assert audit["query"].shape == (7, 2, 2)
    b = test.bank
    assert (b.labels[torch.from_numpy(audit["query"])] == torch.from_numpy(audit["classes"])[..., None]).all()
    assert str(audit["dataset"]) == "toy"
    assert tuple(audit["class_names"].tolist()) == b.names
    assert str(audit["sha256"]) == b.sha256
    assert all(array.dtype != object for array in audit.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "clasify"}, "did you mean 'classify'"),
        ({"ways": 0}, "ways=0: expected a whole number"),
        ({"shots": 1.5}, "shots=1.5"),
        ({"batch": True}, "batch=true"),
        ({"episodes": 0}, "episodes=0"),
        ({"eval_seed": -1}, "eval_seed=-1"),
        ({"train_count": 0}, "train_count=0: expected a whole number from 1"),
        ({"train_count": 2.5}, "train_count=2.5"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(MetagenError, match=message):
        few_shot(**options)


def test_supervised_covers_every_training_image_once_an_epoch():
    b = bank()
    train = Supervised(8, batch=7).streams(b, None, SPLIT, seed=0).train
    assert train.batches == len(train) == 18  # ceil(8 * 15 / 7)
    orders = []
    for epoch in range(2):
        x = torch.cat([train.batch(epoch * 18 + i).query.x[0, 0] for i in range(18)])
        orders.append([tuple(image.flatten().tolist()) for image in x])
    expected = [tuple(image.flatten().tolist()) for image in pixels.unit(b.images[~b.held])]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(expected)
    assert orders[0] != orders[1]


def test_supervised_tests_every_held_image_once():
    b = bank()
    test = Supervised(8, test_batch=9).streams(b, None, SPLIT, seed=0).test
    batches = [test.batch(i) for i in range(len(test))]
    x = torch.cat([batch.query.x[0, 0] for batch in batches])
    rows = torch.from_numpy(test.audit()["query"])
    assert torch.equal(rows.sort().values, b.held.nonzero()[:, 0])
    assert not torch.equal(rows, rows.sort().values), "in an order that mixes the classes"
    assert torch.equal(x, pixels.unit(b.images[rows]))
    assert torch.equal(torch.cat([batch.query.y[0, 0] for batch in batches]), b.labels[rows])
    assert test.class_ids.tolist() == list(range(8))


def test_supervised_batches_have_the_layout_of_episodes():
    batch = Supervised(8, batch=7).streams(bank(), None, SPLIT, seed=0).train.batch(3)
    assert batch.query.x.shape == (1, 1, 7, 1, 4, 4)
    assert batch.query.y.shape == (1, 1, 7)
    assert batch.support.x.shape == (1, 1, 0, 1, 4, 4)
    assert batch.support.y.shape == (1, 1, 0)
    assert batch.query.key.shape == batch.support.key.shape == (1,)
    assert batch.classes.tolist() == [list(range(8))]


def test_supervised_is_a_function_of_seed_and_step():
    a, b, c = (Supervised(8).streams(bank(), None, SPLIT, seed).train for seed in (0, 0, 1))
    a.batch(0)
    assert torch.equal(a.batch(5).query.x, b.batch(5).query.x)
    assert not torch.equal(a.batch(5).query.x, c.batch(5).query.x)


def test_supervised_on_some_classes_and_with_validation():
    streams = Supervised(2, classes=["d", "b"], val_images=10).streams(bank(), None, SPLIT, seed=3)
    assert streams.train.class_ids.tolist() == [3, 1]
    assert len(streams.val.rows) == 10
    assert len(streams.train.rows) == 20
    assert not set(streams.val.rows.tolist()) & set(streams.train.rows.tolist())
    x = streams.test.batch(0)
    assert sorted(x.query.y[0, 0].tolist()) == [0] * 5 + [1] * 5
    again = Supervised(2, classes=["d", "b"], val_images=10).streams(bank(), None, SPLIT, seed=4)
    assert torch.equal(again.val.rows, streams.val.rows)


@pytest.mark.parametrize(
    ("options", "held", "message"),
    [
        ({"ways": 10}, 5, r"set task\.ways=8"),
        ({"ways": 8}, 0, "no published test part"),
        ({"ways": 2, "classes": ["a", "x"]}, 5, "names the class 'x'"),
        ({"ways": 8, "val_images": 120}, 5, r"task\.val_images=120 leaves none of 120 images"),
    ],
)
def test_supervised_that_does_not_fit(options, held, message):
    with pytest.raises(MetagenError, match=message):
        Supervised(**options).streams(bank(held), None, SPLIT, seed=0)


def test_too_few_classes_to_validate_on():
    split = Split(WITH_VAL.train, WITH_VAL.val[:1], WITH_VAL.test)
    says = "in task.val_classes or by another data.split, or set task.val_episodes=0"
    with pytest.raises(MetagenError, match=says):
        few_shot(ways=2).streams(bank(), None, split, seed=0)
