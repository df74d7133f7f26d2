"""Runs and how they stand."""

import os
import time
from functools import partial

import pytest
from comparison_records import record, write

from metagen.cli.main import run
from metagen.runs.listing import age, listing
from metagen.runs.progress import NAME, told
from metagen.runs.records import collect

NOW = time.time()
HYDRA = """\
hydra:
  overrides: {task: [learner=maml, seed=3]}
  runtime: {choices: {data: mnist, task: generate, learner: maml, model: flow, experiment: null}}
"""


@pytest.fixture
def runs(tmp_path):
    return partial(write, tmp_path / "runs")


def record_of(mean):
    return record("chain", 0, {0: {"recognised": [mean, mean]}})


def test_states_newest_first(runs):
    folder = runs(record_of(90.0), None, None, None, "{", record_of(80.0))
    for job in ("2", "3"):
        (folder / job / ".hydra" / "hydra.yaml").write_text(HYDRA)
    (folder / "2" / "checkpoints").mkdir()
    (folder / "2" / "checkpoints" / "last.ckpt").touch()
    ages = {"0": 100, "1": 90, "2": 4000, "3": 5000, "4": 7200, "5": 90000}
    for job, seconds in ages.items():
        for path in [*(folder / job).rglob("*"), folder / job]:
            os.utime(path, (NOW - seconds, NOW - seconds))
    lines = listing([folder], NOW).splitlines()
    cells = [line.split() for line in lines[2:8]]
    assert [row[0].rpartition("/")[2] for row in cells] == ["1", "0", "2", "3", "4", "5"]
    assert [row[1] for row in cells] == ["unfinished", "done", "interrupted", "unfinished", "broken", "done"]
    assert cells[1][2:] == [
        "1",
        "min",
        "digits",
        "generate",
        "chain",
        "vae",
        "0",
        *["recognised", "90.0", "±", "1.0", "%"],
    ]
    assert cells[2][2:] == ["1", "h", "mnist", "generate", "maml", "flow", "3", "-"]
    assert lines[9] == "6 runs: 2 unfinished, 2 done, 1 interrupted, 1 broken"
    assert "4: metrics.json cannot be read" in lines[10]


def test_an_exported_model_is_called_one(runs):
    folder = runs(record_of(90.0), None)
    (folder / "1" / "model.safetensors").touch()
    assert "1 exported" in listing([folder], NOW)
    (left,) = collect([folder])[1]
    assert (left.folder.name, left.why) == ("1", "an exported model")


def test_a_figure_that_one_image_wins_is_shown_beside_the_one_that_finds_it_out(runs):
    values = {"recognised": [100.0, 100.0], "diversity": [0.0, 0.0]}
    both = record("chain", 0, {0: values}, beside="diversity")
    alone = record("chain", 0, {0: {"recognised": [90.0, 90.0]}}, beside="diversity")
    lines = listing([runs(both, alone)], NOW).splitlines()[2:4]
    assert [line.split("recognised")[1].strip() for line in sorted(lines)] == [
        "100.0 ± 1.0 %, diversity 0.0 ± 1.0", "90.0 ± 1.0 %"
    ]  # fmt: skip


def test_a_run_is_running_while_a_process_works_on_it_and_no_longer(runs):
    folder = runs(None, None, record_of(80.0))
    for job in ("0", "1"):
        (folder / job / "checkpoints").mkdir()
        (folder / job / "checkpoints" / "last.ckpt").touch()
    with told(folder / "0") as progress, told(folder / "2"):
        progress.tell(doing="trains", step=5, steps=9)
        (folder / "1" / NAME).write_text((folder / "0" / NAME).read_text().replace('"born": ', '"born": 1'))
        found = {line.split()[0][-1]: line for line in listing([folder]).splitlines()[2:5]}
        assert [found[job].split()[1] for job in "012"] == ["running", "interrupted", "running"]
        assert found["0"].endswith("step 5 of 9")
    lines = listing([folder]).splitlines()
    assert f"metagen train --resume {folder}/0 goes on" in lines
    assert f"metagen train --resume {folder}/1 goes on" in lines
    (folder / "jobs.json").touch()
    assert [line for line in listing([folder]).splitlines() if line.startswith("metagen")] == [
        f"metagen train -m --resume {folder} goes on"
    ]


def test_no_run_at_all(tmp_cwd, capsys):
    assert run(["list"]) == 1
    assert "no folder outputs" in capsys.readouterr().err
    (tmp_cwd / "outputs").mkdir()
    assert run(["list"]) == 1
    assert "no run below outputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (61, "1 min"), (7300, "2 h"), (200000, "2 d"), (-5, "0 s")]
)
def test_age(seconds, text):
    assert age(seconds) == text


def test_a_run_that_is_short_of_its_steps_is_marked(runs, capsys):
    told = {"steps": 22, "planned": 60, "ended": "max_time", "seconds": 5.0}
    whole = record(
        "chain", 1, {0: {"recognised": [80.0, 80.0]}}, training={**told, "steps": 60, "ended": None}
    )
    folder = runs(record("chain", 0, {0: {"recognised": [90.0, 90.0]}}, training=told), whole)
    lines = listing([folder], NOW).splitlines()
    assert sorted(line.split()[1] for line in lines if line.startswith(str(folder)) and ":" not in line) == [
        "done", "short",
    ]  # fmt: skip
    assert f"{folder}/0: 22 of 60 steps, ended by max_time" in lines
    assert run(["compare", str(folder)]) == 0
    assert f"short: {folder}/0 has 22 of 60 steps, ended by max_time" in capsys.readouterr().out


def test_a_sweep_that_was_killed_before_its_first_job_is_named(runs, tmp_path):
    runs("0")
    sweep = tmp_path / "runs/killed"
    sweep.mkdir()
    (sweep / "jobs.json").write_text("{}")
    line = f"{sweep}: no job has begun; metagen train -m --resume {sweep} goes on"
    assert line in listing([tmp_path / "runs"]).splitlines()
    assert listing([sweep]) == line
