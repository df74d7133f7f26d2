"""What comes along with a learner is told: the values that hold, and none that the user gave."""

import pytest
from conftest import composed
from omegaconf import OmegaConf

from metagen.config.tuned import line, tuned
from metagen.runs.run import new_run

REPTILE = ("experiment=mnist_holdout", "learner=reptile")
LEAVE_ONE_OUT = ("experiment=mnist_leave_one_out_started", "learner=scratch")


def told(say, *overrides):
    cfg = composed(*overrides, whole=True)
    choices = dict(cfg.hydra.runtime.choices)
    plain = OmegaConf.to_container(cfg)
    plain.pop("hydra")
    return say(choices, plain, overrides)


def test_the_line_names_learner_experiment_and_values():
    assert told(line, *REPTILE) == (
        "tuned for reptile in mnist_holdout: learner.rule=metagen.learners.rules.Adam, "
        "learner.rule.rate=0.0003, learner.rule.beta1=0.9, learner.steps=5, learner.test_steps=20, "
        "optimizer=torch.optim.SGD, optimizer.lr=0.5, task.batch=4, task.augment=[], "
        "trainer.max_steps=400, trainer.val_check_interval=200"
    )


def test_what_the_user_gave_is_not_told_again():
    found = told(tuned, *REPTILE, "optimizer.lr=0.1", "~task.augment", "learner.rule={rate: 1}")
    assert set(found) == {
        "learner.steps", "learner.test_steps", "optimizer", "task.batch", "trainer.max_steps",
        "trainer.val_check_interval",
    }  # fmt: skip


def test_a_choice_of_an_optimizer_that_is_not_kept_is_told():
    assert told(tuned, *REPTILE, "optimizer=adamw")["optimizer"] == "torch.optim.SGD"


def test_the_values_are_those_that_hold():
    """The size comes after the learner, the experiment's own file after its family's."""
    found = told(tuned, "experiment=mnist_leave_one_out", "learner=reptile", "size=gpu")
    assert (found["task.batch"], found["trainer.max_steps"], found["model.channels"]) == (16, 8000, 64)
    assert told(tuned, *LEAVE_ONE_OUT)["learner.rule.rate"] == 0.005


def test_a_value_that_follows_from_a_model_and_a_size_is_told():
    text = told(line, *LEAVE_ONE_OUT, "model=flow")
    assert text.startswith("tuned for scratch, flow in mnist_leave_one_out_started: learner.rule.rate=0.005")
    assert text.endswith(
        "checkpoint=null, model.maps=6, model.features=32, model.channels=16, model.hidden=128"
    )
    assert "size=gpu" in told(line, "experiment=omniglot_samples", "size=gpu")


@pytest.mark.parametrize("overrides", [(), ("experiment=meta_knowledge",), (*REPTILE[:1], "learner=maml")])
def test_nothing_is_said_where_nothing_was_tuned(overrides):
    assert told(line, *overrides) is None


def test_files_of_the_users_own_are_told(tmp_path):
    beside = tmp_path / "experiment" / "mine" / "learner" / "maml.yaml"
    beside.parent.mkdir(parents=True)
    beside.write_text("learner:\n  steps: 3\n")
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 1\n")
    run = new_run(["experiment=mine", "learner=maml", f"hydra.run.dir={tmp_path / 'out'}"], tmp_path)
    assert run.config["learner"]["steps"] == 3
    found = line(run.choices, run.config, run.overrides, run.places)
    assert found == "tuned for maml in mine: learner.steps=3"
