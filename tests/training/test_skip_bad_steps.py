"""NaN and infinity: the step is skipped, counted, and if it does not end, the run does."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from command_line import fails
from processes import QUICK

from metagen.cli.main import run
from metagen.errors import MetagenError
from metagen.training.checkpoints import newest, read_checkpoint
from metagen.training.module import Experiment
from metagen.training.skip_bad_steps import SkipBadSteps, advice

STEPS = [
    *QUICK, "data.size=16", "trainer.max_steps=6", "trainer.val_check_interval=100",
    "trainer.log_every_n_steps=1",
]  # fmt: skip


def spoil(monkeypatch, steps, how):
    """Let the loss of some steps be what it is not."""
    step = Experiment.training_step

    def training_step(self, batch, index):
        loss = step(self, batch, index)
        return how(loss) if self.global_step in steps else loss

    monkeypatch.setattr(Experiment, "training_step", training_step)


WAYS = {
    "loss": lambda loss: loss * float("nan"),
    "infinite": lambda loss: loss * float("inf"),
    # The square root of 0 is finite, its slope is not.
    "gradient": lambda loss: loss + (loss - loss.detach()).sqrt(),
}


@pytest.mark.parametrize(
    ("learner", "optimizer"),
    [
        ("meta_sgd", "adam"),
        ("fomaml", "adamw"),
        ("reptile", "sgd"),
        ("amortized", "sgd"),
        ("multitask", "adam"),
    ],
)
def test_a_bad_step_is_no_step(learner, optimizer, tmp_cwd, monkeypatch):
    argv = [word for word in STEPS if not word.startswith("learner")]
    steps = ["learner.test_steps=1"] if learner != "amortized" else []
    steps += ["learner.steps=2"] if learner in ("meta_sgd", "fomaml", "reptile") else []
    extra = [
        f"learner={learner}",
        f"optimizer={optimizer}",
        "scheduler=constant",
        "optimizer.lr=1e-5",
        *steps,
    ]
    states = []
    for name, bad in (("good", {}), ("bad", {2})):
        with monkeypatch.context() as patch:
            spoil(patch, bad, WAYS["loss"])
            count = "trainer.max_steps=2" if name == "good" else "trainer.max_steps=3"
            assert run(["train", *argv, *extra, count, f"hydra.run.dir={name}"]) == 0
        states.append(read_checkpoint(f"{name}/checkpoints/last.ckpt"))
    for key, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][key]), key
    a, b = (saved["optimizer_states"][0]["state"] for saved in states)
    assert a.keys() == b.keys()
    for key, slots in a.items():
        for name, value in slots.items():
            assert value is None or torch.equal(torch.as_tensor(value), torch.as_tensor(b[key][name]))
    record = json.loads(Path("bad/metrics.json").read_text())
    assert record["training"]["skipped"] == 1
    assert json.loads(Path("good/metrics.json").read_text())["training"]["skipped"] == 0


@pytest.mark.parametrize("how", WAYS)
def test_it_is_logged_and_the_run_goes_on(how, tmp_cwd, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spoil(monkeypatch, {1, 2, 4}, WAYS[how])
    assert run(["train", *STEPS, "max_skips=2", "hydra.run.dir=run"]) == 0
    (curves,) = Path("run/tensorboard").iterdir()
    events = EventAccumulator(str(curves)).Reload().Scalars("train/skipped")
    assert [event.value for event in events] == [0, 1, 2, 2, 3, 3]
    log = Path("run/metagen.log").read_text()
    assert "step 2 is skipped" in log
    assert "(2 in a row)" in log
    weights = read_checkpoint("run/checkpoints/last.ckpt")["state_dict"].values()
    assert all(x.isfinite().all() for x in weights)


def test_too_many_in_a_row_end_the_run_in_one_line(tmp_cwd, monkeypatch, capsys):
    spoil(monkeypatch, range(3, 100), WAYS["loss"])
    words = ["learner=meta_sgd", "4 steps in a row", "step 6", "optimizer.lr (now 0.001)", "learner.rule"]
    argv = ["train", *STEPS, "max_skips=3", "trainer.max_steps=20", "hydra.run.dir=run"]
    monkeypatch.setattr("metagen.training.skip_bad_steps.log.warning", lambda *args: None)
    assert fails(argv, capsys, *words) == 1
    path, step = newest(Path("run/checkpoints"))
    assert step >= 3
    assert all(x.isfinite().all() for x in read_checkpoint(path)["state_dict"].values())


def test_the_advice_names_the_knobs():
    config = {
        "trainer": {"precision": "bf16-mixed", "gradient_clip_val": None},
        "learner": {"_target_": "x", "rule": {"rate": 0.4}, "second": {"rule": {"rate": 0.1}}},
        "optimizer": {"lr": 1e-3},
    }
    text = advice(config)
    assert text == (
        "try trainer.precision=32-true, or a smaller learner.rule.rate (now 0.4), or a smaller "
        "learner.second.rule.rate (now 0.1), or a smaller optimizer.lr (now 0.001), or "
        "trainer.gradient_clip_val=1"
    )
    assert "precision" not in advice({**config, "trainer": {"precision": "32-true", "gradient_clip_val": 1}})


def test_a_fused_optimizer_skips_without_anybody_waiting():
    """What is done on a GPU, on a CPU: the optimizer gets a flag, the counters are read later."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=0.1, fused=True)
    guard = SkipBadSteps(2, "any", "try less")
    values = []
    for bad in (False, True, True, False, True):
        parameter.grad = torch.full((3,), float("nan") if bad else 1.0)
        guard._mask(torch.tensor(not bad), optimizer)
        optimizer.step()
        values.append(parameter.detach().clone())
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[1], values[2])
    assert torch.equal(values[3], values[4])
    assert not torch.equal(values[2], values[3])
    assert guard.state_dict() == {"total": 3, "row": 1}
    other = torch.nn.Parameter(torch.ones(3))
    plain = torch.optim.Adam([other], lr=0.1, fused=True)
    for _ in range(2):
        other.grad = torch.ones(3)
        plain.step()
    assert torch.equal(other, parameter), "as if the bad steps had not been"
    for _ in range(3):
        guard._mask(torch.tensor(False), optimizer)
    guard._mask(torch.tensor(True), optimizer)
    guard._read()
    assert guard.row > guard.patience, "also where the row ended before it was read"


def test_patience_is_a_number_of_steps():
    with pytest.raises(MetagenError, match="max_skips=-1"):
        SkipBadSteps(-1, "any", "")
    assert isinstance(SkipBadSteps(0, "any", ""), L.Callback)
