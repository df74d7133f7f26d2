"""The order of what a GPU has to show: limits, what is kept, and what is left out when it is resumed."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import generation
import gpu


def step(name, code, limit=20.0):
    return gpu.Step(name, limit, ["-c", code])


@pytest.fixture
def steps(monkeypatch):
    found = [
        step("good", "print('7 of 7')"),
        step("bad", "raise SystemExit(3)"),
        step("endless", "import time; time.sleep(60)", 1.0),
    ]
    monkeypatch.setattr(gpu, "_all", lambda args, device: iter(found))
    return found


def measured(tmp_path, monkeypatch, *words):
    argv = ["gpu.py", "--quick", "--results", str(tmp_path / "r"), "--work", str(tmp_path / "w"), *words]
    monkeypatch.setattr(sys, "argv", argv)
    try:
        gpu.main()
    except SystemExit as error:
        return str(error.code), json.loads((tmp_path / "r/gpu-latest.json").read_text())["steps"]
    return "", json.loads((tmp_path / "r/gpu-latest.json").read_text())["steps"]


def test_every_step_has_its_limit_and_the_next_one_runs(tmp_path, monkeypatch, steps):
    said, rows = measured(tmp_path, monkeypatch)
    assert "not all steps came to their end" in said
    assert [(row["step"], row["code"]) for row in rows] == [("good", 0), ("bad", 3), ("endless", None)]
    assert rows[0]["said"] == "7 of 7"
    assert rows[2]["said"] == "ended after 1 s"
    assert rows[2]["seconds"] < 15
    text = (tmp_path / "r/gpu-latest.md").read_text()
    assert "| good | 0 |" in text
    assert "- torch: " in text


def test_resumed_it_leaves_out_what_came_to_its_end(tmp_path, monkeypatch, steps):
    _, before = measured(tmp_path, monkeypatch)
    steps[1:] = [step("bad", "print('mended')"), step("endless", "print('soon')")]
    steps[0] = step("good", "raise SystemExit(1)")
    said, rows = measured(tmp_path, monkeypatch, "--resume")
    assert said == ""
    assert [row["said"] for row in rows] == ["7 of 7", "mended", "soon"]
    assert rows[0] == before[0]


def test_the_most_valuable_comes_first(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    names = [found.name for found in gpu.steps(gpu.arguments(), "cuda")]
    assert names[0].startswith("step of 32 tasks")
    assert names.index("samples a second") < names.index("resume on the device")
    assert names[-len(gpu.EXPERIMENTS) :] == [f"full size: {name}" for name in gpu.EXPERIMENTS]


def test_every_named_experiment_is_there_with_its_gpu_size():
    from conftest import choices, composed

    for name in gpu.EXPERIMENTS:
        assert name in choices("experiment")
        composed(f"experiment={name}", "size=gpu", "trainer.accelerator=gpu")


def test_images_are_drawn_and_counted(monkeypatch):
    monkeypatch.setattr(Path, "glob", _only("vae.yaml"))
    [row] = generation.rows("cpu", 3, 1)
    assert row["generator"] == "vae"
    assert row["images"] == 3
    assert row["images a second"] > 0


def _only(name):
    glob = Path.glob
    return lambda self, pattern: [path for path in glob(self, pattern) if path.name == name]
