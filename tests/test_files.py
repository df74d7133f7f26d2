import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metagen.errors import MetagenError
from metagen.files import atomic, write_json, write_npz, write_png


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
