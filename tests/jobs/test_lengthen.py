"""A training that goes on: with accumulated gradients and averaged weights, longer, or not at all."""

import json
from functools import cache

import pytest
import torch
from conftest import composed, run_of
from omegaconf import OmegaConf
from processes import QUICK

from metagen.data.stream import EpisodeStream
from metagen.errors import MetagenError, UsageError
from metagen.jobs import train as jobs
from metagen.jobs.resume import resume
from metagen.training.checkpoints import read_checkpoint
from metagen.training.module import Experiment

SHORT = [*QUICK[:-2], "scheduler=constant", "checkpoint_every=1000", "learner=amortized", "logger=none"]
"""Without what QUICK says of the schedule and of the steps of adaptation."""
SHORT = [word for word in SHORT if not word.startswith("learner.") and word != "learner=meta_sgd"]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train in a folder without the evaluation; the numbers of the training batches that were used."""
    used = []
    step, batch = Experiment.training_step, EpisodeStream.batch
    numbers = {}

    def numbered(self, number, *args):
        found = batch(self, number, *args)
        numbers[id(found)] = (number, found)
        return found

    def training_step(self, episode, index):
        used.append(next(n for n, one in numbers.values() if torch.equal(one.query.x, episode.query.x)))
        return step(self, episode, index)

    monkeypatch.setattr(jobs, "_evaluate", lambda *args: 0.0)
    monkeypatch.setattr(Experiment, "training_step", training_step)
    monkeypatch.setattr(EpisodeStream, "batch", numbered)

    def train(name, *overrides):
        used.clear(), numbers.clear()
        jobs.train(run_of(composed(*SHORT, *overrides), tmp_path / name), lambda text: None)
        return list(used), read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")

    return train


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_accumulated_gradients_and_averages_go_on_exactly_and_without_episodes_twice(trained):
    words = ["+trainer.accumulate_grad_batches=2", "callbacks=[ema]", "callbacks.ema.decay=0.5",
             "trainer.val_check_interval=4"]  # fmt: skip
    batches, whole = trained("whole", *words, "trainer.max_steps=4")
    assert batches == list(range(8))
    first, _ = trained("parts", *words, "trainer.max_steps=3")
    rest, parts = trained("parts", *words, "trainer.max_steps=4")
    assert (first, rest) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert whole["global_step"] == parts["global_step"] == 4
    assert same(whole["state_dict"], parts["state_dict"]), "the averages"
    assert same(whole["current_model_state"], parts["current_model_state"])
    assert not same(whole["state_dict"], whole["current_model_state"])


def test_epochs_of_a_few_batches_leave_none_out_and_overfitting_repeats_its_own(trained):
    assert trained("a", "+trainer.limit_train_batches=3", "trainer.max_steps=7")[0] == list(range(7))
    assert trained("b", "+trainer.overfit_batches=2", "trainer.max_steps=5")[0] == [0, 1, 0, 1, 0]


@cache
def configuration():
    return OmegaConf.to_yaml(composed("trainer.max_steps=12345"))


def recorded(folder, max_steps=60, **training):
    """A run that has a record, and no more than its configuration."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(configuration().replace("12345", str(max_steps)))
    (folder / ".hydra" / "overrides.yaml").write_text(f"[trainer.max_steps={max_steps}]")
    (folder / "metrics.json").write_text(json.dumps({"metrics": {}, "training": training}))
    return folder


ENDS = [
    (60, {"steps": 60, "planned": 60, "ended": None}, [], False),
    (60, {"steps": 60, "planned": 60, "ended": None}, ["trainer.max_steps=80"], True),
    (60, {"steps": 60}, ["trainer.max_steps=80"], True),
    (60, {"steps": 22, "planned": 60, "ended": "max_time"}, ["trainer.max_time=null"], True),
    (60, {"steps": 22, "planned": 60, "ended": "early_stopping"}, [], False),
    (60, {"steps": 0, "planned": 0, "ended": None}, [], False),
    (60, {"steps": 30, "planned": 30, "ended": None}, [], False),
]


@pytest.mark.parametrize(("steps", "training", "overrides", "goes_on"), ENDS, ids=lambda value: str(value))
def test_what_goes_on(steps, training, overrides, goes_on, tmp_path):
    found = resume(recorded(tmp_path / "run", steps, **training), overrides)
    assert (found is not None) == goes_on
    if found is not None:
        assert found.kind == "resumed"


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("trainer.max_steps=40", MetagenError),
        ("+trainer.accumulate_grad_batches=2", UsageError),
        ("trainer.precision=bf16-mixed", UsageError),
        ("trainer.gradient_clip_val=1", UsageError),
        ("callbacks=ema", UsageError),
    ],
)
def test_what_a_resumed_run_does_not_take(word, error, tmp_path):
    run = recorded(tmp_path / "run", 60, steps=60, planned=60)
    with pytest.raises(error, match=r"60 steps already|keeps its recipe"):
        resume(run, [word])


def test_a_run_that_its_time_ended_says_that_it_needs_more(tmp_path):
    run = recorded(tmp_path / "run", 60, steps=22, planned=60, ended="max_time")
    text = (run / ".hydra" / "config.yaml").read_text().replace("max_time: null", "max_time: '00:00:01:00'")
    (run / ".hydra" / "config.yaml").write_text(text)
    with pytest.raises(MetagenError, match=r"22 of 60 steps by trainer.max_time"):
        resume(run)
