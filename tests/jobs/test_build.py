"""Starting from a checkpoint: the model always, the learner where it is the same."""

from types import SimpleNamespace

import pytest
import torch
from conftest import composed
from torch import nn

from metagen.errors import MetagenError
from metagen.jobs.build import build_experiment, check_layers, load_checkpoint, start_from
from metagen.runs.places import SHIPPED
from metagen.runs.reopen import checkpoint_file
from metagen.training.plateau import StepPlateau

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


def test_what_a_model_learns_later_may_be_missing_from_the_start(tmp_path):
    def deformation(**overrides):
        small = {"channels": 8, "features": 8, "hidden": 8, "points": 4, "learn": "flows", "pen": False}
        words = [f"model.{key}={str(value).lower()}" for key, value in {**small, **overrides}.items()]
        return build_experiment(composed("model=deformation", "learner=in_context", *words), 4)

    trained, fresh = deformation(), deformation(pen=True, learn="pen")
    drawn = fresh.model.pen.pixels.weight.clone()
    start_from(fresh, saved(trained, tmp_path / "a.ckpt"))
    assert torch.equal(fresh.model.pen.pixels.weight, drawn)
    assert torch.equal(fresh.model.velocity.leave.weight, trained.model.velocity.leave.weight)
    with pytest.raises(MetagenError, match="another model"):
        start_from(deformation(pen=True, learn="pen", hidden=16), tmp_path / "a.ckpt")
    with pytest.raises(MetagenError, match="another model"):  # a critic of what no pen has learned to draw
        start_from(deformation(pen=True, learn="critic"), tmp_path / "a.ckpt")
    saved(fresh, tmp_path / "b.ckpt")
    with pytest.raises(MetagenError, match=r"model\.pen\..* differs"):
        start_from(deformation(pen=True, learn="pen", pen_channels=16), tmp_path / "b.ckpt")


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


@pytest.mark.parametrize(
    ("layer", "words"),
    [(nn.Dropout(0.1), "Dropout .*leave it out"), (nn.Dropout2d(0.1), "Dropout2d"),
     (nn.BatchNorm2d(3), "BatchNorm2d .*BatchStatNorm"), (nn.SyncBatchNorm(3), "SyncBatchNorm"),
     (nn.AlphaDropout(0.1), "AlphaDropout"), (nn.RReLU(), "RReLU draws noise"),
     (nn.FractionalMaxPool2d(2, output_ratio=0.5), "FractionalMaxPool2d draws noise"),
     (nn.MultiheadAttention(4, 2, dropout=0.1), "MultiheadAttention .*dropout=0"),
     (nn.GRU(4, 4, 2, dropout=0.1), "GRU .*dropout=0"),
     (nn.InstanceNorm2d(4, track_running_stats=True), "InstanceNorm2d .*leave track_running_stats out")],
)  # fmt: skip
def test_layers_that_adaptation_cannot_use_are_named(layer, words):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(layer))
    with pytest.raises(MetagenError, match=rf"model\.1\.0: {words}"):
        check_layers(model)


def test_norms_of_one_image_and_layers_without_noise_are_taken():
    norms = nn.GroupNorm(1, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4, affine=True), nn.RMSNorm(4)
    quiet = nn.Dropout(0), nn.TransformerEncoderLayer(4, 2, dropout=0), nn.GRU(4, 4)
    check_layers(nn.Sequential(*norms, *quiet, nn.ReLU()))


def test_a_checkpoint_may_be_named_by_its_run(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[]")
    with pytest.raises(MetagenError, match="has no checkpoint"):
        checkpoint_file(tmp_path)
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    best.touch()
    assert checkpoint_file(tmp_path) == best
    assert checkpoint_file(best) == best


def test_a_checkpoint_may_be_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_file("pretrained/symbols") == SHIPPED / "symbols" / "model.safetensors"
    with pytest.raises(MetagenError, match=r"no model pretrained/symbls ships .* did you mean 'symbols'"):
        checkpoint_file("pretrained/symbls")


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "SequentialLR", "ChainedScheduler"])
def test_any_scheduler_of_torch(name):
    """One that goes by the validation loss, and two that are made of others."""
    place, part = (
        "torch.optim.lr_scheduler",
        "{_target_: torch.optim.lr_scheduler.ConstantLR, _partial_: true}",
    )
    more = {"ReduceLROnPlateau": ["+scheduler.patience=0"],
            "SequentialLR": [f"+scheduler.schedulers=[{part},{part}]", "+scheduler.milestones=[3]"],
            "ChainedScheduler": [f"+scheduler.schedulers=[{part}]"]}[name]  # fmt: skip
    words = [f"scheduler._target_={place}.{name}", "~scheduler.factor", *more]
    experiment = build_experiment(composed(*words, "model.channels=8", "model.hidden=16"), 3)
    config = experiment.configure_optimizers()["lr_scheduler"]
    assert type(config["scheduler"]).__name__ == name
    if name != "ReduceLROnPlateau":
        return
    trainer = SimpleNamespace(
        sanity_checking=False, training=False, validating=True,
        lr_scheduler_configs=[SimpleNamespace(scheduler=config["scheduler"])],
        callback_metrics={"val/loss": torch.tensor(1.0)},
    )  # fmt: skip
    for _ in range(2):
        StepPlateau().on_validation_end(trainer, None)
    assert config["scheduler"].get_last_lr() == [pytest.approx(1e-4)], "once no better: a tenth"
