"""What a comparison writes and shows of strangers' runs is text and nothing else."""

import csv
import io

import numpy as np
import pytest
from comparison_records import record, write
from PIL import Image

from metagen.cli.main import run
from metagen.comparison.page import csv_of, inert, samples_of
from metagen.report.tables import comparison_table, markdown

NAME = "<img src=x onerror=alert(1)>\x1b[2J|[a](javascript:b)`c`\nd"


@pytest.fixture
def sent(tmp_path):
    values = {0: {"recognised": [90.0, 91.0], "negative_elbo": [1.0, 2.0]}}
    evil = [record(learner, seed, values) for learner in (NAME, '=HYPERLINK("x")') for seed in (0, 1)]
    for one in evil:
        one["choices"]["learner"] = one["overrides"][0].partition("=")[2]
    return write(tmp_path / "runs", *evil)


@pytest.mark.parametrize("words", [["list"], ["compare"]])
def test_names_do_not_steer_the_terminal(words, sent, capsys):
    assert run([*words, str(sent)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2J" in out
    assert "`c`\\nd" in out, "a cell has one line"


def test_files_of_a_comparison_are_text(sent, tmp_path):
    out = tmp_path / "out"
    assert run(["compare", str(sent), "--out", str(out)]) == 0
    for name in ("comparison.md", "comparison.html"):
        text = (out / name).read_text()
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text
    assert "[a](javascript" not in (out / "comparison.md").read_text()
    for name in ("comparison.csv", "differences.csv", "runs.csv"):
        rows = list(csv.reader(io.StringIO((out / name).read_text())))
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@"))], name
        assert not [cell for row in rows for cell in row if cell.startswith("-") and not number(cell)], name


def number(text):
    try:
        return float(text) is not None
    except ValueError:
        return False


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\t=1", " =1", "\uff1d1"])
def test_a_formula_is_marked_as_a_text(text):
    assert inert(text) == f"'{text}"
    assert next(csv.reader(io.StringIO(csv_of([{text: 1}])))) == [f"'{text}"]


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+2", "1e-3", "a=b", None, "a-b", 3])
def test_what_is_no_formula_stays(value):
    assert inert(value) == value


def test_markdown_shows_any_text_as_it_is():
    assert markdown("a_b 1.0 ± 2") == "a_b 1.0 ± 2"
    assert markdown("<b>|[x]\\`\na") == "&lt;b&gt;\\|\\[x\\]\\\\\\` a"
    assert comparison_table([{"a|<b>": "x\ny"}])[1].splitlines()[2] == "| x\\\\ny |"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "no picture"])
def test_only_a_runs_own_picture_is_put_into_the_page(kind, sent, tmp_path):
    import os

    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "private.png")
    path = sent / "0" / "samples.png"
    if kind == "link":
        path.symlink_to(tmp_path / "private.png")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("root:x:0:0")
    assert samples_of(sent / "0") is None
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(sent / "1" / "samples.png")
    assert samples_of(sent / "1") == (sent / "1" / "samples.png").read_bytes()
    assert run(["compare", str(sent), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "comparison.html").read_text().count('loading="lazy"') == 1
