import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metagen import files
from metagen.errors import MetagenError
from metagen.files import (
    atomic,
    check_new_file,
    check_new_folder,
    clear_leftovers,
    new_folder,
    scratch,
    write_json,
    write_npz,
    write_png,
)
from metagen.processes import born, place


def test_json_is_standard_sorted_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.json"
    write_json(path, {"b": math.nan, "a": (np.float32(0.5), torch.tensor([1, 2]), Path("x")), 3: {math.inf}})
    assert path.read_text().index('"3"') < path.read_text().index('"a"') < path.read_text().index('"b"')
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "3": [None],
        "a": [0.5, [1, 2], "x"],
        "b": None,
    }


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_npz(tmp_path / f"{name}.npz", x=np.arange(5), classes=["7", "8"])
        write_png(tmp_path / f"{name}.png", Image.new("L", (9, 9), 77))
    for kind in ("npz", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as back:
        assert back["classes"].tolist() == ["7", "8"]
    with pytest.raises(MetagenError, match="objects"):
        write_npz(tmp_path / "c.npz", x=np.array([{}]))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail(error: Exception) -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(RuntimeError):
        fail(RuntimeError())
    with pytest.raises(MetagenError, match="No space left"):
        fail(OSError(28, "No space left on device"))
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_text() == "old"


def test_an_impossible_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MetagenError, match="cannot write") as caught:
        write_json(tmp_path / "file" / "x.json", {})
    assert "\n" not in str(caught.value)


KILL = """
import os, sys
from metagen.files import atomic, new_folder
with {what}(sys.argv[1]) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("what", ["atomic", "new_folder"])
def test_what_a_killed_process_has_left_goes_with_the_next_write(what: str, tmp_path: Path) -> None:
    target = tmp_path / "best.ckpt"
    ended = subprocess.run([sys.executable, "-c", KILL.format(what=what), str(target)])
    assert ended.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".best.ckpt.metagen-")
    files._clear_once.cache_clear()
    write_json(tmp_path / "other.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_only_dead_temporary_files_are_cleared(tmp_path: Path) -> None:
    """Not those of a living process, of another machine, or of another program."""
    with atomic(tmp_path / "own") as own, scratch(tmp_path) as folder:
        own.write_text("")
        (folder / "inside").write_text("")
        here, pid, since = place(), os.getpid(), born(os.getpid())
        again = (
            tmp_path / f".a.metagen-{here}-{pid}-{(since or 0) + 1}-0.tmp"
        )  # a later process of this number
        remote = tmp_path / ".b.metagen-elsewhere-1-7-8-0.tmp"
        old = tmp_path / ".c.metagen-elsewhere-1-7-8-0.tmp"
        others = [tmp_path / name for name in (".notes.123.tmp", "x.metagen-elsewhere-1-7-8-0.tmp", ".vimrc")]
        for path in (again, remote, old, *others):
            path.write_text("")
        os.utime(old, (0, 0))
        assert {path.name for path in clear_leftovers(tmp_path)} == {again.name, old.name}
        assert {own, folder, remote, *others} <= set(tmp_path.iterdir())


class Stop(BaseException):
    """As a signal's: no Exception."""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stop(), OSError(28, "No space left on device")])
def test_a_folder_is_whole_or_not_there(error: BaseException, tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        with new_folder(target) as folder:
            write_json(folder / "a" / "half.json", {})
            raise error

    kind = MetagenError if isinstance(error, OSError) else type(error)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    for target in (tmp_path / "x" / "new", tmp_path / "mine"):
        with pytest.raises(kind):
            fail(target)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "mine",
        "mine/notes",
    ]


def test_a_full_disk_within_a_folder_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(MetagenError, match=r"cannot write .*/new/a\.json: No space left") as caught,
        new_folder(tmp_path / "new") as folder,
    ):
        write_json(folder / "a.json", {})
    assert ".tmp" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_an_earlier_call_wrote_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    for name in ("a/0.png", "a/1.png", "a/mine.txt", "b/0.png", "notes"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("old")
    with new_folder(tmp_path / "out", ["a/0.png", "a/1.png", "b/0.png"]) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "0.png").write_text("new")
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_text() for p in tmp_path.rglob("*") if p.is_file()
    }
    assert found == {"a/0.png": "new", "a/mine.txt": "old", "notes": "old"}
    assert not (tmp_path / "out" / "b").exists()


def test_refusals_say_what_exists_and_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    for name in ("README.md", "link", "fifo"):
        with pytest.raises(
            MetagenError, match=f"--markdown .*{name} exists: name another file, or add --force"
        ):
            check_new_file("--markdown", tmp_path / name, False)
    check_new_file("--markdown", tmp_path / "README.md", True)
    for name in ("fifo", "link", "."):
        with pytest.raises(MetagenError, match="no regular file"):
            check_new_file("--markdown", tmp_path / name, True)
    with pytest.raises(MetagenError, match="not empty: name a new folder, or add --force"):
        check_new_folder("--out", tmp_path, False)
    check_new_folder("--out", tmp_path, True)
    (tmp_path / ".hydra").mkdir()
    with pytest.raises(MetagenError, match="folder of a run"):
        check_new_folder("--out", tmp_path, True)
    with pytest.raises(MetagenError, match="no folder"):
        check_new_folder("--out", tmp_path / "README.md", True)
