"""The order of what a GPU has to show: limits, what is kept, and what is left out when it is resumed."""

import importlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import generation
import gpu
import jax_step
import peers
import step as step_benchmark
import torch
import waits


def step(name, code, limit=20.0):
    return gpu.Step(name, limit, ["-c", code])


@pytest.fixture
def steps(monkeypatch):
    found = [
        step("good", "print('7 of 7')"),
        step("bad", "raise SystemExit(3)"),
        step("endless", "import time; time.sleep(60)", 1.0 / gpu.SLOWER),
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
    assert names[:2] == ["waits of a step", "step of 32 tasks, strided, 5-way 1-shot"]
    assert names.index("samples a second") < names.index("resume on the device")
    assert names[-len(gpu.EXPERIMENTS) :] == [f"full size: {name}" for name in gpu.EXPERIMENTS]


def test_full_sizes_share_what_is_left_of_the_time(tmp_path, monkeypatch):
    said = "import sys; print(sys.argv[1])"
    found = [
        gpu.Step(f"full {number}", 600, ["-c", said, "max_time=TIME"], shares=True) for number in range(3)
    ]
    monkeypatch.setattr(gpu, "_all", lambda args, device: iter(found))
    _, rows = measured(tmp_path, monkeypatch, "--minutes", "10")
    assert rows[0]["said"] == "max_time=00:00:02:13"
    assert rows[2]["said"] == "max_time=00:00:06:39"


def test_quick_does_the_same_steps(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    steps = list(gpu.steps(gpu.arguments(), "cuda"))
    whole = [found.command[0] for found in steps]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick"])
    quick = [found.command[0] for found in gpu.steps(gpu.arguments(), "cpu")]
    assert list(dict.fromkeys(whole)) == list(dict.fromkeys(quick))
    assert sum(found.limit for found in steps if not found.shares) < 25 * 60


def test_a_missing_jax_is_a_row(monkeypatch):
    def missing(name):
        raise peers.MissingError("not installed: pip install --target DIR jax, see README.md")

    monkeypatch.setattr(peers, "load", missing)
    work = next(iter(step_benchmark.works()))
    small = work._replace(overrides=("model.filters=4", "learner.steps=1"), queries=2)
    ours, *others = jax_step.rows(small, 1, 1, "cpu")
    assert ours["ms"] > 0
    assert [row["by"] for row in others] == ["JAX, jit + vmap", "JAX, jit + map"]
    assert all(row["note"].startswith("not installed") for row in others)


def test_a_step_that_waits_is_found():
    def waiting(number):
        x = torch.ones(3)
        return float(x.sum()), x[x > 0], x.nonzero()

    assert set(waits.waits(waiting, "cpu")) == {
        "_local_scalar_dense.default",
        "index.Tensor",
        "nonzero.default",
    }
    assert not waits.waits(lambda number: torch.ones(3) + 1, "cpu")


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


@pytest.mark.parametrize("path", sorted(Path(gpu.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_be_imported(path, monkeypatch):
    """What a script names of metagen is there: they are run by hand, and seldom."""
    monkeypatch.syspath_prepend(str(path.parent))
    names = {other.stem for other in path.parent.glob("*.py")}
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        importlib.import_module(path.stem)
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)
