"""Anybody's map-style data set as a bank: images and labels of every form."""

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import Dataset, IterableDataset
from torchvision import datasets as tv
from torchvision.transforms import v2

from metagen.config.trusted import instantiate
from metagen.data.torch_dataset import TorchDataset, bank_of
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]
pytestmark = pytest.mark.usefixtures("cache")
RGB = np.random.default_rng(0).integers(0, 256, (12, 10, 10, 3), dtype=np.uint8)
LABELS = [2, 0, 1] * 4


class Items(Dataset):
    def __init__(self, items, **attributes):
        self.items = items
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


FORMS = {
    "PIL": Image.fromarray,
    "array": lambda a: a,
    "tensor": lambda a: torch.from_numpy(a).permute(2, 0, 1),
    "float array": lambda a: a / 255,
    "float tensor": lambda a: (torch.from_numpy(a) / 255).permute(2, 0, 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_image(form):
    bank = bank_of(Items([(FORMS[form](a), y) for a, y in zip(RGB, LABELS, strict=True)]))
    assert bank.names == ("0", "1", "2")
    assert bank.counts.tolist() == [4, 4, 4]
    expected = torch.from_numpy(RGB[np.argsort(LABELS, kind="stable")]).permute(0, 3, 1, 2)
    assert torch.equal(bank.images, expected)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (lambda y: y, ("0", "1", "2")),
        (lambda y: torch.tensor(y), ("0", "1", "2")),
        (lambda y: np.int64(y), ("0", "1", "2")),
        (lambda y: "zyx"[y], ("x", "y", "z")),
    ],
)
def test_every_form_of_label(label, names):
    assert bank_of(Items([(a, label(y)) for a, y in zip(RGB, LABELS, strict=True)])).names == names


def test_names_of_the_classes_and_targets_are_the_data_sets():
    items = [(a, y) for a, y in zip(RGB, LABELS, strict=True)]
    assert bank_of(Items(items, classes=["cat", "dog", "owl"], targets=LABELS)).names == ("cat", "dog", "owl")
    assert bank_of(Items(items, classes=["cat", "dog"])).names == ("0", "1", "2")
    assert bank_of(Items(items, targets=[5] * 12, target_transform=str)).names == ("0", "1", "2")


def test_size_channels_and_held():
    items = [(Image.fromarray(a).resize((50, 30)), y) for a, y in zip(RGB, LABELS, strict=True)]
    assert bank_of(Items(items)).images.shape == (12, 3, 30, 30)
    bank = bank_of(Items(items[:9]), size=16, channels=1, held=Items(items[9:]))
    assert bank.images.shape == (12, 1, 16, 16)
    assert bank.held.tolist() == [False, False, False, True] * 3
    grey = [(Image.fromarray(a).convert("L"), y) for a, y in zip(RGB, LABELS, strict=True)]
    assert bank_of(Items(grey)).images.shape == (12, 1, 10, 10)


class Endless(IterableDataset):
    def __iter__(self):
        yield 1


class Broken:
    """No subclass of torch's, and faulty."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return {}["image"]


def test_anything_with_a_length_and_items_is_one():
    class Plain:
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return RGB[i], LABELS[i]

    assert bank_of(Plain()).images.shape == (12, 3, 10, 10)


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (Items([]), "is empty"),
        (Items([RGB[0]]), "expected \\(image, label\\)"),
        (Items([(RGB[0], 1.5)]), "expected an integer or a word"),
        (Items([(RGB[0], (1, 2))]), "expected an integer or a word"),
        (Items([("x.png", 1)]), "expected a PIL image"),
        (Items([(RGB[0] / 100.0, 1)]), "leave Normalize out"),
        (Items([(RGB[0].astype(int) + 200, 1)]), "expected bytes"),
        (Endless(), "map-style"),
        ([(RGB[0], 1)], "is a list: expected a map-style data set"),
        (Broken(), "item 0 of Broken cannot be had \\(KeyError: 'image'\\)"),
    ],
)
def test_what_is_none(dataset, says):
    with pytest.raises(MetagenError, match=says) as error:
        bank_of(dataset, size=8, channels=3)
    assert "\n" not in str(error.value)


def test_torchvisions_by_its_target(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(RGB[i]).save(tmp_path / name / f"{i}.png")
    node = {
        "_target_": "metagen.data.torch_dataset.TorchDataset",
        "dataset": {"_target_": "torchvision.datasets.ImageFolder", "root": str(tmp_path)},
        "size": 10,
    }
    bank = instantiate(OmegaConf.create(node), "data").load()
    assert (bank.name, bank.names) == ("imagefolder", ("cat", "dog"))
    assert torch.equal(bank.images[3], torch.from_numpy(RGB[0]).permute(2, 0, 1))


def test_a_stranger_still_cannot_run_anything():
    for target in ("torchvision.datasets.utils.download_url", "torchvision.datasets.mnist.os.system"):
        with pytest.raises((MetagenError, InstantiationException), match="a configuration may name"):
            instantiate(OmegaConf.create({"_target_": target}), "data")


def test_transforms_of_the_data_set_are_its_own():
    fake = tv.FakeData(6, (3, 20, 20), 2, v2.Compose([v2.PILToTensor(), v2.Grayscale()]))
    assert bank_of(fake).images.shape == (6, 1, 20, 20)


def test_a_version_keeps_the_bank_and_none_reads_anew(monkeypatch):
    items = [(a, y) for a, y in zip(RGB, LABELS, strict=True)]

    class Counted(Items):
        reads = 0

        def __repr__(self):
            return "Counted"

        def __getitem__(self, i):
            Counted.reads += 1
            return self.items[i]

    for version, reads in ((None, 24), ("1", 12), ("2", 12)):
        Counted.reads = 0
        for _ in range(2):
            TorchDataset(Counted(items, targets=LABELS), size=10, version=version).load()
        assert Counted.reads == reads
