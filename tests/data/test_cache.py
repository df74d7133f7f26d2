import errno
import logging

import numpy as np
import pytest
import torch
from data_samples import toy_bank

from metagen.data import cache as caches
from metagen.errors import MetagenError


class Reader:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return toy_bank(held=2)


def same(a, b):
    return (a.name, a.names, a.sha256) == (b.name, b.names, b.sha256) and torch.equal(a.held, b.held)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some" / "folder" / "toy.npz"


def test_second_load_reads_the_cache(path):
    read = Reader()
    first, second = (caches.cached(path, "key", read) for _ in range(2))
    assert read.calls == 1
    assert same(first, second)
    assert [file.name for file in path.parent.iterdir()] == ["toy.npz"]


def test_cache_needs_no_pickle(path):
    caches.cached(path, "key", Reader())
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forge(path):
    """Valid npz, other content."""
    with np.load(path) as file:
        arrays = dict(file)
    arrays["held"] = ~arrays["held"]
    np.savez(path, **arrays)


@pytest.mark.parametrize("damage", [truncate, empty, flip, forge])
def test_damaged_cache_is_rebuilt(path, damage, caplog):
    read = Reader()
    caches.cached(path, "key", read)
    damage(path)
    assert same(caches.cached(path, "key", read), toy_bank(held=2))
    assert read.calls == 2
    assert "will be rebuilt" in caplog.text
    caches.cached(path, "key", read)
    assert read.calls == 2


def test_stale_cache_is_rebuilt(path, tmp_path):
    source, read = tmp_path / "source", Reader()
    keys = []
    for content in ("one", "three"):
        source.write_text(content)
        keys.append(caches.fingerprint({"size": 28}, [source]))
        caches.cached(path, keys[-1], read)
    assert read.calls == 2
    assert keys[0] != keys[1] != caches.fingerprint({"size": 32}, [source])


def test_unwritable_folder_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        bank = caches.cached(tmp_path / "file" / "toy.npz", "key", Reader())
    assert same(bank, toy_bank(held=2))
    assert "cannot write" in caplog.text


def test_full_disk_is_a_warning_and_leaves_nothing(path, monkeypatch, caplog):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert same(caches.cached(path, "key", Reader()), toy_bank(held=2))
    assert "No space left on device" in caplog.text
    assert not path.parent.exists()


def test_errors_of_the_source_are_not_hidden(path):
    def read():
        raise MetagenError("corrupt")

    with pytest.raises(MetagenError, match="corrupt"):
        caches.cached(path, "key", read)
    assert not path.exists()


def test_folder_from_argument_environment_and_home(monkeypatch, tmp_path):
    assert caches.folder("x").name == "x"
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_path))
    assert caches.folder(None) == tmp_path
    monkeypatch.delenv("METAGEN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.folder(None) == tmp_path / ".cache" / "metagen"
