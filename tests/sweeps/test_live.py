"""The live table of a sweep: on a terminal, and where there is none."""

import json
import os
import time
from dataclasses import asdict, replace

import pytest

from metagen.processes import born, place
from metagen.runs.progress import NAME, Progress, told, works_on
from metagen.sweeps import live
from metagen.sweeps.live import LiveTable, in_words
from metagen.sweeps.plan import Job, Sweep

OWN = Progress(place(), os.getpid(), born(os.getpid()))
TRAINS = replace(OWN, doing="trains", step=54, steps=1000, loss=0.123456, left=182.0)


@pytest.fixture
def sweep(tmp_path):
    jobs = [Job(i, str(i), [f"seed={i}", "data=digits"]) for i in range(3)]
    for job, progress in zip(jobs, (TRAINS, None, replace(OWN, doing="tests")), strict=True):
        (tmp_path / job.folder).mkdir()
        if progress is not None:
            (tmp_path / job.folder / NAME).write_text(json.dumps(asdict(progress)))
    return Sweep(tmp_path, "train", [], [], [], str(tmp_path), jobs)


def test_a_terminal_has_a_table_that_is_drawn_again(sweep, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(live, "REDRAWN", 0.0)
    table = LiveTable(sweep)
    table.show(sweep.jobs, 4)
    drawn = capsys.readouterr().out.splitlines()
    assert drawn[0].split() == ["job", "seed", "doing", "step", "loss", "left"], "only what differs"
    assert drawn[2].split() == ["0", "0", "trains", "54", "of", "1000", "0.1235", "3:02"]
    assert drawn[3].split() == ["1", "1", "starts", "-", "-", "-"]
    assert drawn[4].split() == ["2", "2", "tests", "-", "-", "-"]
    assert drawn[5] == "3 running, 4 waiting"
    table.say("job 1 done")
    assert capsys.readouterr().out == "\x1b[6A\x1b[Jjob 1 done\n", "what stays stands above"
    table.show(sweep.jobs[:1], 4)
    table.show(sweep.jobs[:1], 4)
    assert capsys.readouterr().out.count("\x1b[4A\x1b[J") == 1
    table.erase()
    table.erase()
    assert capsys.readouterr().out == "\x1b[4A\x1b[J"


def test_no_line_is_longer_and_no_table_higher_than_the_terminal(sweep, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(live, "REDRAWN", 0.0)
    LiveTable(sweep).show(sweep.jobs, 0)
    drawn = capsys.readouterr().out.splitlines()
    assert len(drawn) < 6
    assert max(map(len, drawn)) < 20
    assert "... and 2 more" in drawn


def test_elsewhere_a_line_for_each_job_now_and_then(sweep, monkeypatch, capsys):
    table = LiveTable(sweep)
    table.show(sweep.jobs, 0)
    assert capsys.readouterr().out == ""
    table._shown -= live.SAID
    table.show(sweep.jobs, 0)
    assert capsys.readouterr().out.splitlines() == [
        "job 0: trains, step 54 of 1000, loss 0.1235, 3:02 left",
        "job 1: starts",
        "job 2: tests",
    ]
    assert in_words(None) == "starts"


@pytest.mark.parametrize(
    ("change", "works"),
    [
        ({}, True),
        ({"pid": 2**22 + 1}, False),
        ({"born": (OWN.born or 0) + 1}, False),
        ({"place": "elsewhere"}, True),
        ({"pid": -1}, False),
        ({"pid": "many"}, False),
        ({"more": 1}, False),
    ],
)
def test_a_process_is_known_by_its_number_and_its_birth(change, works, tmp_path):
    (tmp_path / NAME).write_text(json.dumps(asdict(OWN) | change))
    assert (works_on(tmp_path) is not None) == works
    if change.get("place"):
        assert works_on(tmp_path, time.time() + 3600) is None, "it has been silent for long"


def test_progress_is_told_while_a_process_works_and_no_longer(tmp_path):
    with told(tmp_path) as progress:
        assert works_on(tmp_path) == OWN
        progress.tell(doing="trains", step=54, steps=1000, loss=0.123456, left=182.0)
        assert works_on(tmp_path) == TRAINS
        progress.tell(loss=float("nan"))
        assert works_on(tmp_path) == replace(TRAINS, loss=None)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with told(tmp_path / "file" / "none"):
        pass  # where it cannot be written, nothing ends for that
