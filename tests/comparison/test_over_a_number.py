"""Metrics over an override, from made-up records."""

import json

import pytest
from PIL import Image

from metagen.cli.main import run
from metagen.comparison.over_a_number import curve
from metagen.errors import MetagenError
from metagen.report.tables import number


def record(overrides, mean, seed=0, sha="a", shots=5, ci95=1.5, **more):
    metrics = {
        "negative_elbo": {"mean": mean, "ci95": ci95, "n": 50},
        "diversity": {"mean": 0.5, "ci95": 0.1, "n": 50},
    }
    return {
        "overrides": [*overrides, f"seed={seed}"], "seed": seed, "episodes": {"sha256": sha},
        "task": {"shots": shots, "train_count": None, "symmetries": False}, "training": {"steps": 3},
        "metrics": metrics, "units": {"negative_elbo": "nats", "diversity": ""},
    } | more  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(*records):
        for item in records:
            folder = tmp_path / "runs" / str(len(list(tmp_path.glob("runs/*"))))
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps(item))
        return [tmp_path / "runs"]

    return write


def cells(table):
    """The table's body: rows of cells."""
    head, _, *rows = table.split("\n\n")[1].splitlines()
    starts = [0, *(i + 2 for i in range(len(head)) if table.splitlines()[3][i : i + 2] == "  ")]
    return [
        [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for row in [head, *rows]
    ]


def test_mean_and_students_interval_over_seeds(write):
    runs = write(
        *(record(["task.train_count=2"], mean, seed) for seed, mean in enumerate((10.0, 12.0, 14.0))),
        *(record(["task.train_count=1"], mean, seed) for seed, mean in enumerate((20.0, 22.0, 24.0))),
    )
    text = curve(runs, "task.train_count", ["negative_elbo"])
    assert text.startswith("Means and 95 % intervals over 3 seeds (Student's t)\n")
    half = 4.302652729911275 * 2 / 3**0.5  # t_{0.975, 2} s / sqrt(n)
    assert cells(text) == [
        ["task.train count", "seeds", "negative elbo"],
        ["1", "3", number(22.0, half)],
        ["2", "3", number(12.0, half)],
    ]
    assert number(22.0, half) == "22.0 ± 5.0"


def test_one_seed_has_its_interval_over_episodes(write):
    text = curve(
        write(record(["task.train_count=2"], 10.0), record(["task.train_count=16"], 9.0)), "task.train_count"
    )
    assert text.startswith("95 % intervals over the test episodes of one seed\n")
    assert cells(text)[1] == ["2", "1", "10.0 ± 1.5", "0.50 ± 0.10"]
    assert [row[0] for row in cells(text)[1:]] == ["2", "16"], "in the order of numbers"


def test_the_caption_says_where_it_is_over_episodes(write):
    seeds = [record(["task.train_count=2"], 10.0 + seed, seed) for seed in (0, 1)]
    text = curve(write(*seeds, record(["task.train_count=4"], 9.0)), "task.train_count")
    assert text.startswith(
        "Means and 95 % intervals over seeds (Student's t), over test episodes where there is one"
    )


def test_other_overrides_make_lines_and_a_run_without_x_is_a_control(write, tmp_path):
    runs = write(
        record(["learner=multitask", "task.train_count=1"], 30.0),
        record(["learner=amortized", "task.train_count=1"], 31.0),
        record(["learner=multitask", "task.train_count=8"], 20.0),
        record(["learner=scratch"], 25.0),
        record(["learner=scratch"], 27.0, seed=1),
    )
    text = curve(runs, "task.train_count", ["negative_elbo"], tmp_path / "plot.png", tmp_path / "table.md")
    assert [row[:3] for row in cells(text)] == [
        ["learner", "task.train count", "seeds"],
        ["multitask", "1", "1"],
        ["multitask", "8", "1"],
        ["amortized", "1", "1"],
        ["scratch", "-", "2"],
    ]
    assert Image.open(tmp_path / "plot.png").width > 400
    assert "| scratch | - | 2 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.md").read_text().startswith("Means and 95 %")


def test_a_default_and_the_same_thing_said_aloud_are_one_line(write):
    choices = {"choices": {"learner": "multitask"}}
    runs = write(
        record(["task.train_count=1"], 30.0, **choices),
        record(["task.train_count=2", "learner=multitask", "task.shots=5"], 30.0, **choices),
    )
    assert cells(curve(runs, "task.train_count", ["diversity"]))[0] == [
        "task.train count",
        "seeds",
        "diversity",
    ]


def test_x_may_be_what_a_task_has_by_default_and_then_the_episodes_differ(write):
    runs = write(record([], 30.0), record(["task.shots=1"], 40.0, shots=1, sha="b"))
    assert [row[0] for row in cells(curve(runs, "task.shots"))[1:]] == ["1", "5"]
    write(record(["task.shots=1", "learner=scratch"], 50.0, shots=1, sha="c"))
    with pytest.raises(MetagenError, match="different episodes"):
        curve(runs, "task.shots")


def test_runs_that_were_evaluated_anew_are_averaged_over_seeds(write):
    runs = write(
        *(
            record([f"checkpoint='run{seed}/best.ckpt'", "learner.test_steps=5"], 30.0 + seed, seed)
            | {"training": {"checkpoint": f"run{seed}/best.ckpt"}}
            for seed in (0, 1)
        )
    )
    assert [row[:2] for row in cells(curve(runs, "learner.test_steps"))[1:]] == [["5", "2"]]


def test_an_undefined_seed_is_not_dropped(write, tmp_path):
    runs = write(record(["task.train_count=1"], None), record(["task.train_count=1"], 3.0, seed=1))
    assert cells(curve(runs, "task.train_count", None, tmp_path / "a.png"))[1][2] == "undefined"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--x", "task.train_cuont"], ["task.train_cuont", "did you mean 'task.train_count'"]),
        (["--x", "learner"], ["learner", "'maml'", "a number"]),
        (
            ["--x", "task.train_count", "--metric", "negativ_elbo"],
            ["negativ_elbo", "did you mean 'negative_elbo'"],
        ),
        (["--x", "task.train_count", "--metric", "zzz"], ["zzz", "negative_elbo, diversity"]),
    ],
)
def test_mistakes(options, words, write, capsys):
    runs = write(*(record(["learner=maml", f"task.train_count={n}"], 1.0) for n in (1, 2)))
    assert run(["compare", *map(str, runs), *options, "--plot", str(runs[0] / "plot.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("metagen: error: ")
    assert all(word in line for word in words), line
    assert not (runs[0] / "plot.png").exists()


def test_a_run_that_is_there_twice(write):
    with pytest.raises(MetagenError, match="the same run twice"):
        curve(write(*[record(["task.train_count=1"], 1.0)] * 2), "task.train_count")
