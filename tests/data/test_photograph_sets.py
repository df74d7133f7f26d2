"""CIFAR-100, SVHN and flowers through the real download code, on small archives in torchvision's format."""

import io
import tarfile

import numpy as np
import pytest
import torch
from data_samples import md5, packed, serve_cifar
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as tv

from metagen.data.cifar100 import CIFAR100
from metagen.data.flowers102 import Flowers102
from metagen.data.mini_imagenet import MiniImageNet
from metagen.data.split import Split
from metagen.data.svhn import SVHN
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]
pytestmark = pytest.mark.usefixtures("cache")
RANDOM = np.random.default_rng(0)


def fine_names():
    split = Split.load("cifar_fs")
    return sorted(split.train + split.val + split.test)


@pytest.fixture
def cifar(server, monkeypatch):
    """CIFAR-100 with three images of each class, served: its images by part."""
    return serve_cifar(server, monkeypatch, fine_names(), {"train": 2, "test": 1})


@pytest.mark.parametrize(
    ("split", "sizes"),
    [("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20)), ("cifar100_fsdm", (60, 20, 20))],
)
def test_cifar_is_downloaded_and_split(cifar, tmp_path, split, sizes):
    data = CIFAR100(str(tmp_path / "root"), split=split)
    bank = data.load()
    assert bank.images.shape == (300, 3, 32, 32)
    assert bank.names == tuple(fine_names())
    assert not bank.held.any()
    third = [cifar["train"]["data"][3], cifar["train"]["data"][103], cifar["test"]["data"][3]]
    assert np.array_equal(bank.images[bank.labels == 3].numpy(), np.stack(third).reshape(3, 3, 32, 32))
    found = data.class_split(bank)
    found.check(bank.names, bank.name)
    assert tuple(len(side) for side in (found.train, found.val, found.test)) == sizes


@pytest.mark.usefixtures("cifar")
def test_torchvision_reads_what_was_downloaded_and_its_folder_is_read(tmp_path, monkeypatch):
    root = tmp_path / "root"
    bank = CIFAR100(str(root)).load()
    assert len(tv.CIFAR100(str(root), download=True)) == 200
    (root / tv.CIFAR100.filename).unlink()
    monkeypatch.setattr(tv.CIFAR100, "url", "http://127.0.0.1:9/none")
    assert CIFAR100(str(root), cache=str(tmp_path / "other")).load().sha256 == bank.sha256


@pytest.mark.usefixtures("cifar")
def test_a_foreign_pickle_is_not_opened(tmp_path):
    root = tmp_path / "root"
    CIFAR100(str(root)).load()
    packed(root / tv.CIFAR100.filename, {"cifar-100-python/train": b"cos\nsystem\n(S'touch x'\ntR."})
    with pytest.raises(MetagenError, match="expected MD5"):
        CIFAR100(str(root), cache=str(tmp_path / "other")).load()


def test_the_splits_of_cifar_have_a_source():
    for name in ("cifar_fs", "fc100", "cifar100_fsdm"):
        split = Split.load(name)
        assert sorted(split.train + split.val + split.test) == fine_names()
    assert Split.load("fc100") == Split.load("cifar100_fsdm")
    assert {"baby", "boy", "girl", "man", "woman"} <= set(Split.load("fc100").test), "by superclasses"
    assert {"baby", "man", "woman", "rocket", "whale"} <= set(Split.load("cifar_fs").test)


def test_svhn(server, tmp_path, monkeypatch):
    www, url = server
    listed, images = {}, {}
    for part, count in (("train", 20), ("test", 10)):
        file = f"{part}_32x32.mat"
        images[part] = RANDOM.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        savemat(www / file, {"X": images[part], "y": (np.arange(count) % 10 + 1)[:, None].astype(np.uint8)})
        listed[part] = [url + file, file, md5(www / file)]
    monkeypatch.setattr(tv.SVHN, "split_list", listed)
    bank = SVHN(str(tmp_path / "root")).load()
    assert bank.images.shape == (30, 3, 32, 32)
    assert bank.held.sum() == 10
    zeros = bank.images[bank.labels == 0].numpy()
    assert np.array_equal(zeros[0], images["train"][..., 9].transpose(2, 0, 1)), "the files say 10 for a 0"
    assert len(tv.SVHN(str(tmp_path / "root"), download=True)) == 20
    path = tmp_path / "root" / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(MetagenError, match="expected MD5"):
        SVHN(str(tmp_path / "root")).load()


def jpeg(colour):
    file = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(file, "JPEG")
    return file.getvalue()


def test_flowers102(server, tmp_path, monkeypatch):
    www, url = server
    labels = np.tile(np.arange(102), 2) + 1
    pictures = {f"jpg/image_{i + 1:05d}.jpg": jpeg((int(y), 100, 200)) for i, y in enumerate(labels)}
    packed(www / "102flowers.tgz", pictures)
    savemat(www / "imagelabels.mat", {"labels": labels[None]})
    listed = {"image": ("102flowers.tgz", md5(www / "102flowers.tgz"))}
    listed |= {"label": ("imagelabels.mat", md5(www / "imagelabels.mat"))}
    monkeypatch.setattr(tv.Flowers102, "_file_dict", {**tv.Flowers102._file_dict, **listed})
    monkeypatch.setattr(tv.Flowers102, "_download_url_prefix", url)
    bank = Flowers102(str(tmp_path / "root"), size=16).load()
    assert bank.images.shape == (204, 3, 16, 16)
    assert bank.names == tuple(tv.Flowers102.classes)
    reds = bank.images[:, 0, 8, 8].int()
    assert (reds - (bank.labels + 1)).abs().max() <= 6
    folder = tmp_path / "root" / "flowers-102"
    with tarfile.open(folder / "102flowers.tgz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "102flowers.tgz").unlink()
    again = Flowers102(str(tmp_path / "root"), size=16).load().images.int()
    assert (again - bank.images.int()).abs().max() <= 6
    (folder / "jpg" / "image_00001.jpg").unlink()
    with pytest.raises(MetagenError, match="expected 204 photographs, found 203"):
        Flowers102(str(tmp_path / "root"), size=16).load()


@pytest.mark.parametrize("laid", [False, True])
def test_mini_imagenet_from_a_folder(tmp_path, laid):
    split = Split.load("mini_imagenet")
    for side in ("train", "val", "test"):
        for name in getattr(split, side):
            folder = tmp_path / side / name if laid else tmp_path / name
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(jpeg((9, 9, 9)))
    data = MiniImageNet(str(tmp_path), size=8)
    bank = data.load()
    assert bank.images.shape == (100, 3, 8, 8)
    found = data.class_split(bank)
    assert found == split
    assert [len(side) for side in (found.train, found.val, found.test)] == [64, 16, 20]
    found.check(bank.names, bank.name)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("kind", [CIFAR100, SVHN, Flowers102])
def test_no_network_and_no_data(tmp_path, kind):
    with pytest.raises(MetagenError, match="download failed") as error:
        kind(str(tmp_path)).load()
    assert "data=digits" in str(error.value)
    assert torch.tensor([path.is_file() for path in tmp_path.rglob("*")]).sum() == 0
