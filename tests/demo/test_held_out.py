"""Held-out classes: real images of classes that the training left out."""

import numpy as np
import pytest

from metagen.demo.engine import Engine
from metagen.demo.held_out import HeldOut
from metagen.errors import MetagenError

pytest_plugins = ["demo.demo_fixtures"]


@pytest.fixture(scope="module")
def held_out(run_folders):
    return HeldOut(Engine([run_folders["amortized"], run_folders["reptile"]]).runners)


def test_they_are_the_test_classes_of_the_split(held_out):
    assert list(held_out.classes) == ["digits: 7", "digits: 8", "digits: 9"]
    assert held_out.missing == []


def test_images_are_distinct_and_of_the_class(held_out):
    bank = held_out.classes["digits: 8"].bank
    mine = bank.images[bank.labels == bank.names.index("8"), 0].numpy()
    found = held_out.draw("digits: 8", 5, 3)
    assert (found.shape, found.dtype) == ((5, 28, 28), np.uint8)
    rows = [np.flatnonzero((mine == image).all((1, 2))).tolist() for image in found]
    assert all(rows)
    assert len({row[0] for row in rows}) == 5
    assert np.array_equal(found, held_out.draw("digits: 8", 5, 3))
    assert not np.array_equal(found, held_out.draw("digits: 8", 5, 4))
    assert len(held_out.draw("digits: 8", 99, 0)) == 5


@pytest.mark.parametrize("name", ["", "digits: 0", "__class__"])
def test_no_other_class_can_be_had(held_out, name):
    with pytest.raises(MetagenError, match="choose a class"):
        held_out.draw(name, 1, 0)


def test_missing_data_do_not_stop_the_page(run_folders, monkeypatch):
    engine = Engine([run_folders["amortized"], run_folders["reptile"]])
    engine.runners[0].trained.config["data"] = {
        "_target_": "metagen.data.omniglot_gmn.OmniglotGMN", "root": "nowhere", "split": "omniglot_background"
    }  # fmt: skip
    found = HeldOut(engine.runners)
    assert list(found.classes) == ["digits: 7", "digits: 8", "digits: 9"]
    assert len(found.missing) == 1
    assert "amortized" in found.missing[0]
    assert "nowhere" in found.missing[0]
