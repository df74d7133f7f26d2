"""Data sets of the Hugging Face hub: against a double of the package, and against the package where it is."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from metagen.data.hub import Hub
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]
pytestmark = pytest.mark.usefixtures("cache")
RGB = np.random.default_rng(0).integers(0, 256, (9, 12, 12, 3), dtype=np.uint8)
LABELS = [2, 0, 1] * 3


class Table:
    """The part of a ``datasets.Dataset`` that is used."""

    def __init__(self, rows, fingerprint):
        self.rows, self._fingerprint = rows, fingerprint
        self.column_names = ["image", "label"]
        self.features = {"image": SimpleNamespace(), "label": SimpleNamespace(names=["cat", "dog", "owl"])}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if key == "label":
            return [y for _, y in self.rows]
        return dict(zip(self.column_names, self.rows[key], strict=True))


@pytest.fixture
def double(monkeypatch):
    rows = [(Image.fromarray(a), y) for a, y in zip(RGB, LABELS, strict=True)]
    known = {"animals": {"train": Table(rows[:6], "a"), "test": Table(rows[6:], "b")}}

    def load_dataset(path, subset=None):
        if path not in known:
            raise FileNotFoundError(f"Couldn't find\n{path}")
        return known[path]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return known


@pytest.mark.usefixtures("double")
def test_a_name_on_the_hub():
    bank = Hub("animals", held="test", size=12).load()
    assert (bank.name, bank.names) == ("animals", ("cat", "dog", "owl"))
    assert bank.held.tolist() == [False, False, True] * 3
    assert torch.equal(bank.images[0], torch.from_numpy(RGB[1]).permute(2, 0, 1))
    assert len(Hub("animals", size=12).load().images) == 6


def test_the_cache_goes_by_the_fingerprint(double):
    first = Hub("animals", size=12).load()
    double["animals"]["train"].rows = double["animals"]["train"].rows[::-1]
    assert Hub("animals", size=12).load().sha256 == first.sha256
    double["animals"]["train"]._fingerprint = "c"
    assert Hub("animals", size=12).load().sha256 != first.sha256


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "plants"}, r"data\.path=plants cannot be loaded \(Couldn't find plants\)"),
        ({"path": "animals", "image": "img"}, r"no column 'img' \(it has image, label\)"),
        (
            {"path": "animals", "train": "all"},
            "no part 'all': set data.train or data.held to one of",
        ),
    ],
)
def test_what_is_not_there(options, says):
    with pytest.raises(MetagenError, match=says) as error:
        Hub(**options)
    assert "\n" not in str(error.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MetagenError, match=r"pip install 'metagen-images\[hub\]'"):
        Hub("animals")


@pytest.mark.hub
def test_a_folder_of_the_real_package(tmp_path):
    datasets = pytest.importorskip("datasets")
    labels = datasets.ClassLabel(names=["cat", "dog", "owl"])
    features = datasets.Features({"image": datasets.Image(), "label": labels})
    rows = {"image": [Image.fromarray(a) for a in RGB], "label": LABELS}
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "saved"))
    bank = Hub(str(tmp_path / "saved"), held="test", size=12).load()
    assert bank.names == ("cat", "dog", "owl")
    assert torch.equal(bank.images[0], torch.from_numpy(RGB[1]).permute(2, 0, 1))
    assert int(bank.held.sum()) == 9
    for i, a in enumerate(RGB):
        folder = tmp_path / "plain" / "train" / ("cat", "dog", "owl")[LABELS[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(a).save(folder / f"{i}.png")
    assert Hub(str(tmp_path / "plain"), size=12).load().names == ("cat", "dog", "owl")
