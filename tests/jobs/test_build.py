"""Starting from a checkpoint: the model always, the learner where it is the same."""

import pytest
import torch
from conftest import composed

from metagen.errors import MetagenError
from metagen.jobs.build import build_experiment, load_checkpoint, start_from

SMALL = ["model.maps=1", "model.features=4", "model.latent=2", "model.channels=8", "model.hidden=8"]


def experiment(learner, *overrides, seed=0):
    return build_experiment(composed(f"learner={learner}", f"seed={seed}", *SMALL, *overrides), 4)


def saved(experiment, path):
    torch.save({"state_dict": experiment.state_dict(), "global_step": 3}, path)
    return path


def test_the_same_learner_starts_with_everything(tmp_path):
    trained, fresh = experiment("transfer"), experiment("transfer", seed=1)
    start_from(fresh, saved(trained, tmp_path / "a.ckpt"))
    for name, value in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


def test_another_learner_starts_with_the_model_and_keeps_its_own_rest(tmp_path):
    trained, fresh = experiment("amortized"), experiment("meta_sgd", seed=1)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    start_from(fresh, saved(trained, tmp_path / "a.ckpt"))
    after = fresh.state_dict()
    own = [name for name in after if name.startswith("learner.")]
    assert own
    assert all(torch.equal(after[name], before[name]) for name in own)
    assert all(torch.equal(after[name], value) for name, value in trained.state_dict().items())


def test_another_model_and_what_is_no_checkpoint_are_refused(tmp_path):
    path = saved(experiment("amortized"), tmp_path / "a.ckpt")
    with pytest.raises(MetagenError, match="another model"):
        start_from(experiment("amortized", "model.hidden=16"), path)
    torch.save({"weights": 1}, tmp_path / "b.ckpt")
    for load in (start_from, load_checkpoint):
        with pytest.raises(MetagenError, match="no readable checkpoint"):
            load(experiment("amortized"), tmp_path / "b.ckpt")
        with pytest.raises(MetagenError, match="no checkpoint at"):
            load(experiment("amortized"), tmp_path / "c.ckpt")
    with pytest.raises(MetagenError, match="does not fit"):
        load_checkpoint(experiment("meta_sgd"), path)
