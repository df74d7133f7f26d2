"""What the tests compose is what Hydra composes by itself."""

from contextlib import nullcontext

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from quick_composition import hydra_as_it_is

from metagen.config.compose import compose

COMPOSED = [
    [],
    ["learner=maml", "experiment=quickstart", "task.shots=1"],
    ["experiment=omniglot_start", "size=gpu", "+metric=kid"],
    ["experiment=mnist_leave_one_out_started", "model=gan", "hydra.run.dir=out", "~judge.lr"],
]


@pytest.mark.parametrize("overrides", COMPOSED, ids=" ".join)
def test_it_is_the_same_and_changes_nothing_of_what_was_read(overrides):
    compose(["seed=3", "model.hidden=9", *overrides])
    quick = compose(overrides)
    with hydra_as_it_is():
        plain = compose(overrides)
    assert quick.choices == plain.choices
    assert OmegaConf.to_yaml(quick.whole) == OmegaConf.to_yaml(plain.whole)


def test_a_file_of_the_users_own_is_read_anew(tmp_path):
    (tmp_path / "learner").mkdir()
    for steps in (3, 4):
        (tmp_path / "learner" / "mine.yaml").write_text(f"defaults:\n  - maml\nsteps: {steps}\n")
        assert compose(["learner=mine"], tmp_path).config["learner"]["steps"] == steps


def test_values_do_not_leak_into_what_is_composed_next():
    before = compose(["learner=maml", "learner.steps=7", "+task.new=[1]", "~judge.lr"])
    after = compose(["learner=maml", "learner.steps=8"])
    assert (before.config["learner"]["steps"], after.config["learner"]["steps"]) == (7, 8)
    assert "new" not in after.config["task"]
    assert "lr" in after.config["judge"]


@pytest.mark.parametrize("wrong", ["learner=nosuch", "+learner=maml", "~scheduler=cosine", "nosuch.key=1"])
def test_what_hydra_refuses_is_refused_with_the_same_words(wrong):
    compose([])
    said = []
    for way in (nullcontext, hydra_as_it_is):
        with way(), pytest.raises((HydraException, ValueError)) as caught:
            compose([wrong])
        said.append(str(caught.value))
    assert said[0] == said[1]
