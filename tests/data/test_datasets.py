import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data_samples import make_mnist, make_omniglot, md5
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchvision import datasets as tv

from metagen.data import idx
from metagen.data.digits import Digits
from metagen.data.emnist import EMNISTBalanced, EMNISTLetters
from metagen.data.mnist import KMNIST, MNIST, FashionMNIST
from metagen.data.omniglot import Omniglot
from metagen.data.omniglot_gmn import OmniglotGMN
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]
pytestmark = pytest.mark.usefixtures("cache")

CONF = Path(__file__).parents[2] / "conf" / "data"
# What they wrap would be downloaded: see their own tests.
WRAPPED = ("torch_dataset", "hub")
FOLDERS = {"folder": ".", "mini_imagenet": "mini_imagenet"}
NAMES = dict.fromkeys(("cifar_fs", "fc100", "cifar100_fsdm"), "cifar100")
MNIST_FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def letters_files(part="letters"):
    return [
        f"emnist-{part}-{side}-{what}-ubyte"
        for side in ("train", "test")
        for what in ("images-idx3", "labels-idx1")
    ]


def message(load):
    """The one line that a failing load says."""
    with pytest.raises(MetagenError) as error:
        load()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", sorted({path.stem for path in CONF.glob("*.yaml")} - {*WRAPPED}))
def test_every_config_makes_its_data_set(name, monkeypatch, tmp_path):
    monkeypatch.setenv("METAGEN_DATA", str(tmp_path))
    node = OmegaConf.load(CONF / f"{name}.yaml")
    data = instantiate(node)
    root = tmp_path / FOLDERS.get(name, ".")
    assert data.name == (root.name if name in FOLDERS else NAMES.get(name, name))
    assert data.root == root
    assert data.size == node.size
    assert data.channels == node.channels


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 129}, "expected a whole number from 8 to 128"),
        ({"channels": 2}, "channels=2"),
        ({"split": "0.7/0.2/0.2"}, "add up to 1"),
        ({"size": "28"}, "size='28'"),
        ({"root": None}, "root=null"),
        ({"split": "digit_789"}, "did you mean 'digits_789'"),
    ],
)
def test_bad_arguments(options, text):
    assert text in message(lambda: Digits(**options))


def test_digits():
    bank = Digits().load()
    assert bank.images.shape == (1797, 1, 28, 28)
    assert bank.names == tuple("0123456789")
    assert bank.images.max() == 255
    for label in range(10):
        held = bank.held[bank.labels == label]
        assert held.nonzero()[:, 0].tolist() == list(range(4, len(held), 5))
    assert Digits().load().sha256 == bank.sha256
    assert Digits(size=8).load().images.shape == (1797, 1, 8, 8)


@pytest.fixture
def any_checksum(monkeypatch):
    monkeypatch.setattr(MNIST, "checksums", {})


@pytest.mark.usefixtures("any_checksum", "offline")
@pytest.mark.parametrize("cls", [MNIST, FashionMNIST, KMNIST])
def test_mnist_and_siblings_from_raw_files(tmp_path, cls):
    arrays = make_mnist(tmp_path / cls.folder / "raw", MNIST_FILES, zipped=False)
    bank = cls(str(tmp_path)).load()
    assert bank.name == cls.name
    assert bank.names == tuple("0123456789")
    assert bank.counts.tolist() == [6] * 10
    assert bank.held.sum() == 20
    expected = np.concatenate([arrays[0][arrays[1] == 3], arrays[2][arrays[3] == 3]])
    assert (bank.images[bank.labels == 3, 0].numpy() == expected).all()
    assert bank.held[bank.labels == 3].tolist() == [False] * 4 + [True] * 2


@pytest.mark.real_data
def test_real_mnist(real_mnist):
    assert real_mnist.images.shape == (70_000, 1, 28, 28)
    assert real_mnist.held.sum() == 10_000
    assert real_mnist.counts[:3].tolist() == [6903, 7877, 6990]


@pytest.mark.real_data
def test_corrupt_mnist_names_file_and_checksums(real_root, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_FILES:
        (raw / name).symlink_to((real_root / "MNIST" / "raw" / name).absolute())
    broken = raw / MNIST_FILES[2]
    data = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(data[:-1])
    text = message(MNIST(str(tmp_path)).load)
    assert str(broken) in text
    assert "expected MD5 2646ac647ad5339dbf082846283269ea" in text
    assert f"found {md5(broken)}" in text


@pytest.mark.usefixtures("offline")
def test_truncated_sibling_names_file_and_length(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    make_mnist(raw, MNIST_FILES, zipped=False)
    (raw / MNIST_FILES[0]).write_bytes((raw / MNIST_FILES[0]).read_bytes()[:1000])
    text = message(FashionMNIST(str(tmp_path)).load)
    assert f"{raw / MNIST_FILES[0]}: its header announces {16 + 40 * 784} bytes, found 1000" in text
    (raw / MNIST_FILES[0]).write_bytes(b"<html>")
    assert "expected an IDX header" in message(FashionMNIST(str(tmp_path)).load)


def test_broken_gzip(tmp_path):
    raw = tmp_path / "KMNIST" / "raw"
    make_mnist(raw, MNIST_FILES)
    text = message(KMNIST(str(tmp_path)).load)
    assert dict(tv.KMNIST.resources)[MNIST_FILES[0] + ".gz"] in text
    assert md5(raw / f"{MNIST_FILES[0]}.gz") in text


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("cls", [MNIST, KMNIST, EMNISTLetters, Omniglot, OmniglotGMN])
def test_no_network_and_no_data(tmp_path, cls):
    text = message(cls(str(tmp_path)).load)
    assert str(tmp_path) in text
    assert "data=digits" in text
    assert any(end in text for end in (".gz,", ".zip", ".npz"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_unwritable_root(tmp_path):
    (tmp_path / "file").write_text("")
    text = message(MNIST(str(tmp_path / "file")).load)
    assert "Not a directory" in text
    assert "data=digits" in text


def served(server, monkeypatch, cls=tv.MNIST):
    """Serve small MNIST files as ``cls`` of torchvision would find them."""
    www, url = server
    make_mnist(www, MNIST_FILES)
    resources = [(f"{name}.gz", md5(www / f"{name}.gz")) for name in MNIST_FILES]
    monkeypatch.setattr(cls, "mirrors", [url + "dead/", url])
    monkeypatch.setattr(cls, "resources", resources)
    return www


def test_missing_files_are_downloaded(server, tmp_path, monkeypatch):
    served(server, monkeypatch)
    bank = MNIST(str(tmp_path / "root")).load()
    assert len(bank.images) == 60
    raw = tmp_path / "root" / "MNIST" / "raw"
    assert sorted(path.name for path in raw.iterdir()) == sorted(f"{name}.gz" for name in MNIST_FILES)


@pytest.mark.usefixtures("any_checksum")
def test_only_the_missing_file_is_downloaded(server, tmp_path, monkeypatch):
    www = served(server, monkeypatch)
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_FILES[:3]:
        (raw / name).write_bytes(gzip.decompress((www / f"{name}.gz").read_bytes()))
        (www / f"{name}.gz").unlink()
    assert len(MNIST(str(tmp_path / "root")).load().images) == 60
    assert sorted(path.name for path in raw.iterdir()) == sorted([*MNIST_FILES[:3], f"{MNIST_FILES[3]}.gz"])


def test_a_download_that_is_not_what_it_should_be_leaves_nothing(server, tmp_path, monkeypatch):
    www = served(server, monkeypatch)
    path = www / f"{MNIST_FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-10])
    text = message(MNIST(str(tmp_path / "root")).load)
    assert "corrupted" in text
    assert not (tmp_path / "root").exists()


def test_torchvision_reads_what_was_downloaded(server, tmp_path, monkeypatch):
    served(server, monkeypatch)
    bank = MNIST(str(tmp_path / "root")).load()
    other = tv.MNIST(str(tmp_path / "root"), download=True)
    assert len(other) == int((~bank.held).sum())


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("place", ["raw", "gz", "archive"])
def test_emnist_is_turned_upright(tmp_path, monkeypatch, place):
    raw = tmp_path / "EMNIST" / "raw"
    arrays = make_mnist(raw, letters_files(), train=52, test=26, classes=26, first=1, zipped=place != "raw")
    if place == "archive":
        with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
            for name in letters_files():
                archive.write(raw / f"{name}.gz", f"gzip/{name}.gz")
                (raw / f"{name}.gz").unlink()
        monkeypatch.setattr(tv.EMNIST, "md5", md5(raw / "gzip.zip"))
    bank = EMNISTLetters(str(tmp_path)).load()
    assert bank.names == tuple("abcdefghijklmnopqrstuvwxyz")
    assert bank.counts.tolist() == [3] * 26
    assert bank.held.sum() == 26
    assert (bank.images[0].numpy() == arrays[0][0].T).all()


def test_emnist_is_downloaded_and_checked(server, tmp_path, monkeypatch):
    www, url = server
    make_mnist(www, letters_files("balanced"), train=94, test=47, classes=47)
    with zipfile.ZipFile(www / "gzip.zip", "w") as archive:
        for name in letters_files("balanced"):
            archive.write(www / f"{name}.gz", f"gzip/{name}.gz")
    monkeypatch.setattr(tv.EMNIST, "url", url + "gzip.zip")
    monkeypatch.setattr(tv.EMNIST, "md5", md5(www / "gzip.zip"))
    data = EMNISTBalanced(str(tmp_path / "root"))
    assert len(data.load().names) == 47
    assert list(tv.EMNIST.classes_split_dict["balanced"]) == list(data.classes)
    archive_path = data.raw / "gzip.zip"
    archive_path.write_bytes(archive_path.read_bytes()[:-100])
    text = message(data.load)
    assert tv.EMNIST.md5 in text
    assert md5(archive_path) in text


@pytest.mark.usefixtures("offline", "small_omniglot")
def test_omniglot_from_archives_and_from_folders(tmp_path):
    make_omniglot(tmp_path / "omniglot-py")
    bank = Omniglot(str(tmp_path)).load()
    assert bank.names[2:6] == (
        "Alpha/character03",
        "Beta/character01",
        "Beta/character02",
        "Gamma/character01",
    )
    assert bank.counts.tolist() == [3] * 9
    assert not bank.held.any()
    assert bank.images.float().mean() < 64  # strokes are ink = 255 on 0
    extracted = tmp_path / "extracted" / "omniglot-py"
    for part in Omniglot.parts:
        with zipfile.ZipFile(tmp_path / "omniglot-py" / f"{part}.zip") as archive:
            archive.extractall(extracted)
    assert Omniglot(str(extracted.parent)).load().sha256 == bank.sha256


@pytest.mark.usefixtures("small_omniglot")
def test_omniglot_is_downloaded(server, tmp_path, monkeypatch):
    www, url = server
    make_omniglot(www)
    monkeypatch.setattr(tv.Omniglot, "download_url_prefix", url.rstrip("/"))
    monkeypatch.setattr(tv.Omniglot, "zips_md5", {part: md5(www / f"{part}.zip") for part in Omniglot.parts})
    assert len(Omniglot(str(tmp_path / "root")).load().names) == 9


@pytest.mark.usefixtures("small_omniglot")
@pytest.mark.parametrize("damage", ["truncated", "flipped", "incomplete"])
def test_corrupt_omniglot(tmp_path, monkeypatch, damage):
    make_omniglot(tmp_path / "omniglot-py")
    path = tmp_path / "omniglot-py" / "images_background.zip"
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[200] ^= 255
        path.write_bytes(data)
    else:
        monkeypatch.setitem(Omniglot.parts, "images_background", 6)
    text = message(Omniglot(str(tmp_path)).load)
    assert str(path) in text
    assert tv.Omniglot.zips_md5["images_background"] in text
    assert md5(path) in text
    if damage == "incomplete":
        assert "expected 6 characters and 18 images, found 5 and 15" in text


@pytest.mark.real_data
def test_real_omniglot(real_omniglot):
    assert real_omniglot.images.shape == (32_460, 1, 28, 28)
    assert len(real_omniglot.names) == 1623
    assert 0.07 < real_omniglot.images.float().mean() / 255 < 0.09


@pytest.mark.real_data
def test_real_omniglot_gmn_shows_the_same_characters(real_root, real_omniglot):
    bank = OmniglotGMN(str(real_root)).load()
    assert bank.names == real_omniglot.names
    assert set(bank.images.unique().tolist()) == {0, 255}
    means = [b.images.reshape(1623, 20, -1).float().mean(1).flatten() for b in (bank, real_omniglot)]
    assert torch.corrcoef(torch.stack(means))[0, 1] > 0.8


def test_omniglot_gmn_checks_its_files(tmp_path, monkeypatch):
    folder = tmp_path / "omniglot-gmn"
    folder.mkdir()
    monkeypatch.setattr(OmniglotGMN, "files", {"train_small.npz": 2, "test_small.npz": 1})
    paper = np.full((20, 784), 255, np.uint8)
    names = {"train_small.npz": ["A/character01", "A/character02"], "test_small.npz": ["B/character01"]}
    for file, characters in names.items():
        part = "images_background" if "train" in file else "images_evaluation"
        np.savez(folder / file, **{f"{part}/{name}": paper for name in characters})
    bank = OmniglotGMN(str(tmp_path)).load()
    assert bank.names == ("A/character01", "A/character02", "B/character01")
    assert bank.images.max() == 0
    np.savez(folder / "test_small.npz", **{"images_evaluation/B/character01": paper[:19]})
    assert "expected 1 characters of uint8 (20, 784), found 1, 0 of that form" in message(
        OmniglotGMN(str(tmp_path)).load
    )
    path = folder / "train_small.npz"
    path.write_bytes(path.read_bytes()[:500])
    text = message(OmniglotGMN(str(tmp_path)).load)
    assert str(path) in text
    assert md5(path) in text


@pytest.mark.usefixtures("any_checksum", "offline")
def test_changed_files_are_noticed_despite_the_cache(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    make_mnist(raw, MNIST_FILES, zipped=False)
    before = MNIST(str(tmp_path)).load().sha256
    make_mnist(raw, MNIST_FILES, zipped=False, seed=1)
    assert MNIST(str(tmp_path)).load().sha256 != before


@pytest.mark.parametrize("shape", [(0, 28, 28), (3, 0, 28), (0,)])
def test_idx_without_data_is_refused(shape):
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    with pytest.raises(MetagenError, match="file: expected images or labels, found"):
        idx.decode(header, Path("file"))
    for data in (b"", header[:-1]):
        with pytest.raises(MetagenError, match="expected an IDX header"):
            idx.decode(data, Path("file"))


@pytest.mark.parametrize("images", [(3, 32, 32), (3, 28, 20), (2, 28, 28), (3, 784), (3,)])
def test_idx_of_another_shape_is_refused(images):
    with pytest.raises(MetagenError, match="expected M images of 28x28 and M labels"):
        idx.pair(torch.zeros(images, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8), Path("file"))
