"""``metagen cache``: lists, checks and clears banks and judges."""

import pytest

from metagen.cli import main as cli
from metagen.data.digits import Digits


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_path / "cache"))
    for size in (8, 16):
        Digits(size=size).load()
    (tmp_path / "cache" / "judge-0123.pt").write_bytes(b"weights")
    (tmp_path / "cache" / "mnist-0123456789ab.npz").write_bytes(b"old")
    return tmp_path / "cache"


def run(capsys, *argv):
    code = cli.run(["cache", *argv])
    out = capsys.readouterr()
    return code, out.out + out.err


def test_it_is_listed(cache, capsys):
    code, text = run(capsys)
    assert code == 0
    assert "1,797 images 1 x 8 x 8 of 10 classes" in text
    assert "1,797 images 1 x 16 x 16 of 10 classes" in text
    assert "judge-0123.pt" in text
    assert "of an older version" in text
    assert f"4 files, 0.6 MB in {cache}" in text


def test_it_is_checked(cache, capsys):
    path = sorted(cache.glob("banks/*.bank"))[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    text = run(capsys, "--check")[1]
    assert text.count("(whole)") == 1
    assert text.count("(damaged: its checksum does not match its content)") == 1


def test_all_or_some_of_it_is_cleared(cache, capsys):
    assert "1 files" in run(capsys, "--clear", "judge")[1]
    assert len(list(cache.glob("banks/*.bank"))) == 2
    assert "2 files, 0.6 MB removed" in run(capsys, "digits", "--clear")[1]
    assert list((cache / "banks").iterdir()) == [], "what named them is gone, too"
    assert Digits(size=8).load().images.shape == (1797, 1, 8, 8)
    run(capsys, "--clear")
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert run(capsys)[1].startswith("0 files, 0.0 MB")


def test_unknown_names_and_options(cache, capsys):
    code, text = run(capsys, "--clear", "digit")
    assert code == 1
    assert "did you mean 'digits'" in text
    code, text = run(capsys, "--clear", "--check")
    assert code == 2
    assert len(list(cache.glob("banks/*.bank"))) == 2
