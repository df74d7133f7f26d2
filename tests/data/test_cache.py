import errno
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import types

import pytest
import torch
from data_samples import toy_bank
from filelock import FileLock

from metagen.data import bank_file
from metagen.data import cache as caches
from metagen.data.bank_file import Labelled
from metagen.errors import MetagenError


class Reader:
    """Streams a bank in two parts and counts how often."""

    def __init__(self, bank=None):
        self.calls, self.bank = 0, bank or toy_bank(held=2)

    def __call__(self):
        self.calls += 1
        yield from self.bank.images.split(20)
        return Labelled(self.bank.labels, self.bank.names, self.bank.held)


def same(a, b):
    return (a.name, a.names, a.sha256) == (b.name, b.names, b.sha256) and torch.equal(a.held, b.held)


def load(folder, read, key="key", place="here"):
    return caches.cached(folder, "toy", key, place, read)


def banks(folder):
    return sorted(folder.glob("banks/*.bank"))


@pytest.mark.parametrize("channels", [1, 3])
def test_second_load_reads_the_cache(tmp_path, channels):
    read = Reader(toy_bank(held=2, channels=channels))
    first, second = (load(tmp_path, read) for _ in range(2))
    assert read.calls == 1
    assert same(first, second)
    assert same(first, read.bank)
    assert torch.equal(second.images, read.bank.images)
    assert len(list((tmp_path / "banks").iterdir())) == 2, "the bank, and the key that names it"


def test_images_that_another_process_reads_are_waited_for_and_not_read_again(tmp_path, monkeypatch, caplog):
    theirs, mine = Reader(), Reader()
    pointer = tmp_path / "banks" / "key.json"
    pointer.parent.mkdir()
    lock = FileLock(f"{pointer}.lock", thread_local=False)
    lock.acquire()
    warning = caches._LOG.warning

    def said(*args):
        warning(*args)
        caches._made(pointer.parent, "toy", "key", "here", theirs)
        lock.release()

    monkeypatch.setattr(caches._LOG, "warning", said)
    assert same(load(tmp_path, mine), theirs.bank)
    assert (mine.calls, theirs.calls) == (0, 1)
    assert "waits for the images of toy, which another process reads" in caplog.text


def test_equal_content_is_kept_once(tmp_path):
    """The same digits, read from two folders."""
    for key, place in (("one", "here"), ("two", "there")):
        load(tmp_path, Reader(), key, place)
    assert len(banks(tmp_path)) == 1
    assert bank_file.checksum(toy_bank(held=2))[:16] in banks(tmp_path)[0].name


def test_what_was_read_from_the_same_place_before_is_removed(tmp_path):
    old, new = Reader(), Reader(toy_bank((7, 7)))
    load(tmp_path, old, "old")
    load(tmp_path, old, "other", "elsewhere")
    load(tmp_path, new, "new")
    assert len(banks(tmp_path)) == 2, "the old one is still used elsewhere"
    load(tmp_path, new, "newer", "elsewhere")
    assert [bank_file.describe(path)["names"] for path in banks(tmp_path)] == [["a", "b"]]


def test_without_a_key_nothing_stays(tmp_path):
    read = Reader()
    bank = load(tmp_path, read, None)
    assert same(bank, read.bank)
    assert torch.equal(bank.images, read.bank.images)
    assert list((tmp_path / "banks").iterdir()) == []


def test_the_images_are_mapped_not_read(tmp_path):
    """40 MiB of images take no memory but the page cache."""
    big = Reader(toy_bank((40,) * 16, size=256))
    load(tmp_path, big)
    code = (
        "import sys, torch; from pathlib import Path; from metagen.data import bank_file\n"
        "def held():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('RssAnon'))\n"
        "before = held(); bank = bank_file.read(Path(sys.argv[1])); bank.images.sum(); print(held() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(banks(tmp_path)[0])], capture_output=True, check=True
    )
    assert big.bank.images.numel() == 640 * 2**16
    assert int(done.stdout) < 10_000, "kB of memory of its own"


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_held(path):
    """Another held image: the images' checksum stays."""
    m = len(toy_bank().images)
    data = bytearray(path.read_bytes())
    data[m * 16 + m * 8] ^= 1
    path.write_bytes(data)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, empty, flip, flip_held, remove])
def test_damaged_cache_is_rebuilt(tmp_path, damage, caplog):
    read = Reader()
    load(tmp_path, read)
    damage(banks(tmp_path)[0])
    assert same(load(tmp_path, read), toy_bank(held=2))
    assert read.calls == 2
    assert "will be rebuilt" in caplog.text
    load(tmp_path, read)
    assert read.calls == 2


def test_a_damaged_key_is_rebuilt(tmp_path, caplog):
    read = Reader()
    load(tmp_path, read)
    (tmp_path / "banks" / "key.json").write_text("{")
    assert same(load(tmp_path, read), read.bank)
    assert read.calls == 2
    assert json.loads((tmp_path / "banks" / "key.json").read_text())["bank"] == banks(tmp_path)[0].name


def test_a_large_file_is_checked_on_demand(tmp_path, monkeypatch):
    load(tmp_path, Reader())
    path = banks(tmp_path)[0]
    monkeypatch.setattr(bank_file, "CHECKED", 100)
    assert bank_file.read(path).sha256 == toy_bank().sha256
    flip(path)
    bank_file.read(path)
    with pytest.raises(ValueError, match="checksum"):
        bank_file.read(path, check=True)
    truncate(path)
    with pytest.raises(ValueError, match="end"):
        bank_file.read(path)


def test_stale_cache_is_rebuilt(tmp_path):
    source, read = tmp_path / "source", Reader()
    keys = []
    for content in ("one", "three"):
        source.write_text(content)
        keys.append(caches.fingerprint({"size": 28}, [source]))
        load(tmp_path, read, keys[-1])
    assert read.calls == 2
    assert keys[0] != keys[1] != caches.fingerprint({"size": 32}, [source])


def test_unwritable_folder_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        bank = load(tmp_path / "file", Reader())
    assert same(bank, toy_bank(held=2))
    assert "could not be written" in caplog.text


def test_full_disk_is_a_warning_and_leaves_nothing(tmp_path, caplog):
    """A limit of the file's size stands for the end of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        bank = load(tmp_path, Reader())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert same(bank, toy_bank(held=2))
    assert os.strerror(errno.EFBIG) in caplog.text
    assert list((tmp_path / "banks").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from data_samples import toy_bank
from filelock import FileLock
from metagen.data import cache
def read():
    yield toy_bank(held=2).images[:3]
    os.kill(os.getpid(), signal.SIGKILL)
cache.cached(Path(sys.argv[1]), "toy", "key", "here", read)
"""


def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path):
    where = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=where)
    assert done.returncode == -signal.SIGKILL
    left = sorted(path.suffix for path in (tmp_path / "banks").iterdir())
    assert left == [".lock", ".tmp"], "half a bank, under a temporary name"
    assert same(load(tmp_path, Reader()), toy_bank(held=2))
    assert sorted(path.suffix for path in (tmp_path / "banks").iterdir()) == [".bank", ".json"]


def test_errors_of_the_source_are_not_hidden(tmp_path):
    def read():
        yield toy_bank().images[:3]
        raise MetagenError("corrupt")

    with pytest.raises(MetagenError, match="corrupt"):
        load(tmp_path, read)
    assert list((tmp_path / "banks").iterdir()) == []


def test_folder_from_argument_environment_and_home(monkeypatch, tmp_path):
    assert caches.folder("x").name == "x"
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_path))
    assert caches.folder(None) == tmp_path
    monkeypatch.delenv("METAGEN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.folder(None) == tmp_path / ".cache" / "metagen"


MINE = """
import torch
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset

class Mine(Dataset):
    name = "mine"

    def sources(self):
        return []

    def read(self):
        images = torch.full((4, 1, 8, 8), GREY, dtype=torch.uint8)
        return Bank("mine", images, torch.tensor([0, 0, 1, 1]), ("a", "b"), torch.zeros(4, dtype=bool))
"""


@pytest.mark.parametrize("in_a_file", [True, False])
def test_a_bank_that_another_read_made_is_stale(tmp_path, monkeypatch, in_a_file):
    file, seen = tmp_path / "mine.py", []
    for grey in (10, 10, 20):
        text = MINE.replace("GREY", str(grey))
        module = types.ModuleType("mine")
        monkeypatch.setitem(sys.modules, "mine", module)
        if in_a_file:
            file.write_text(text)
            module.__file__ = str(file)
        exec(text, module.__dict__)
        data = module.Mine(size=8, split="0.5/0/0.5", cache=str(tmp_path / "cache"))
        seen.append(int(data.load().images.max()))
    assert seen == [10, 10, 20]
    assert len(list((tmp_path / "cache" / "banks").glob("*.bank"))) == 1, "what is stale is removed"
