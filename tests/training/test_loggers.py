"""Loggers and callbacks that a configuration names."""

import csv
import sys

import pytest
import torch
from conftest import choices, composed
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metagen.config.compose import plain
from metagen.config.flat import hyperparameters
from metagen.config.schema import check
from metagen.errors import MetagenError
from metagen.training.callbacks import check_callbacks, check_validated
from metagen.training.loggers import label, log_image, make_loggers
from metagen.training.trainers import Trainers


def trainers(*overrides):
    config = plain(composed(*overrides))
    check(config)
    return Trainers(config["trainer"], config.get("logger"), config.get("callbacks"))


def test_every_choice_is_a_node_that_the_schema_takes():
    for name in choices("callbacks"):
        check(plain(composed(f"callbacks={name}")))
    for name in choices("logger"):
        check(plain(composed(f"logger={name}")))


def test_tensorboard_is_the_default_and_a_list_asks_for_several(tmp_path):
    (usual,) = trainers().training(tmp_path, "seed=0").loggers
    assert isinstance(usual, TensorBoardLogger)
    assert usual.log_dir == str(tmp_path / "tensorboard" / "seed=0")
    both = trainers("logger=[tensorboard,csv]").training(tmp_path, "seed=0").loggers
    assert [type(one) for one in both] == [TensorBoardLogger, CSVLogger]
    assert both[1].log_dir.rstrip("/") == str(tmp_path / "csv")
    assert trainers("logger=none").training(tmp_path, "seed=0").loggers == []


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_missing_package_is_named_as_pip_knows_it(name, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MetagenError, match=f"logger={name} .*: pip install {package}$"):
        trainers(f"logger={name}")


def test_wandb_is_told_the_runs_name_its_folder_and_where_to_go_on(tmp_path, monkeypatch):
    told = {}

    class WandbLogger(CSVLogger):
        def __init__(self, save_dir, name=None, **more):
            told.update(more, save_dir=save_dir, name=name)
            super().__init__(save_dir)

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", WandbLogger)
    monkeypatch.setattr("metagen.training.loggers.instantiate", lambda node, where, **own: WandbLogger(
        **{key: value for key, value in (dict(node) | own).items() if key != "_target_"}
    ))  # fmt: skip
    nodes = plain(composed("logger=wandb", "logger.wandb.offline=true"))["logger"]
    make_loggers(nodes, tmp_path, "seed=3")
    first = dict(told)
    assert (first["name"], first["save_dir"], first["offline"]) == ("seed=3", str(tmp_path / "."), True)
    make_loggers(nodes, tmp_path, "seed=3", resumed=7)
    assert (told["id"], told["resume"]) == (first["id"], "allow"), "it goes on in the same place"


def test_callbacks_by_name_and_by_class(tmp_path):
    made = trainers(
        "callbacks=[ema,early_stopping,lr_monitor]", "callbacks.ema.decay=0.5",
        "+callbacks.bar._target_=lightning.pytorch.callbacks.TQDMProgressBar",
    ).training(tmp_path).callbacks  # fmt: skip
    kinds = (EMAWeightAveraging, EarlyStopping, LearningRateMonitor, TQDMProgressBar)
    assert [sum(isinstance(one, kind) for one in made) for kind in kinds] == [1, 1, 1, 1]
    average = next(one for one in made if isinstance(one, EMAWeightAveraging))
    assert average._kwargs["avg_fn"](torch.tensor(2.0), torch.tensor(4.0), 1) == 3.0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+callbacks.mine._target_=os.system"], "callbacks.mine._target_=os.system"),
        (["+logger.mine._target_=subprocess.Popen"], "logger.mine._target_=subprocess.Popen"),
        (["+callbacks.mine._target_=torch.nn.Linear"], "expected a node with a _target_|missing"),
        (["logger.tensorboard.save_dir=/elsewhere"], "within that of the run"),
        (["logger.tensorboard.save_dir=../elsewhere"], "within that of the run"),
        (["+callbacks.a={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: /x}"], "dirpath=/x"),
        (["+trainer.profiler={_target_: lightning.pytorch.profilers.Profiler, dirpath: /x}"], "dirpath=/x"),
        (["callbacks=ema", "callbacks.ema.decays=0.5"], "decays"),
    ],
)  # fmt: skip
def test_what_a_configuration_must_not_name(overrides, words):
    with pytest.raises(Exception, match=words):
        trainers(*overrides)


class Logs(Callback):
    """One that may log what another one looks at."""


def test_callbacks_with_nothing_to_look_at_are_refused():
    with pytest.raises(MetagenError, match="no validation: set task"):
        check_validated([EarlyStopping("val/loss")])
    check_validated([EarlyStopping("train/loss"), LearningRateMonitor()])
    with pytest.raises(MetagenError, match="logger=none"):
        check_callbacks([LearningRateMonitor()], loggers=False)
    check_callbacks([EarlyStopping("val/loss"), LearningRateMonitor()], loggers=True)
    with pytest.raises(MetagenError, match=r"looks at val/recognised, which is not logged: .*, val/loss"):
        check_callbacks([EarlyStopping("val/recognised")], loggers=True)
    check_callbacks([EarlyStopping("mine"), Logs()], loggers=True)


def test_a_curve_in_a_file_goes_on_after_a_resume(tmp_path):
    nodes = plain(composed("logger=csv"))["logger"]
    (first,) = make_loggers(nodes, tmp_path, "")
    for step in range(4):
        first.log_metrics({"train/loss": float(step)}, step)
    first.save()
    (again,) = make_loggers(nodes, tmp_path, "", resumed=2)
    again.log_metrics({"train/loss": 20.0}, 2)
    again.save()
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open()))
    assert [(int(row["step"]), float(row["train/loss"])) for row in rows] == [(0, 0.0), (1, 1.0), (2, 20.0)]


def test_a_run_is_named_by_its_choices_first_and_stays_a_name_of_a_folder():
    words = ["task.shots=1", "learner=maml", "seed=3", "data.root=/a b/c", "checkpoint=/x/y.ckpt"]
    assert label(words) == "learner=maml,seed=3,task.shots=1,data.root=_a_b_c"
    assert len(label([f"a.b{i}={i}" for i in range(100)])) <= 120
    assert "/" not in label(["a=../../x"])


def test_an_image_reaches_tensorboard(tmp_path):
    (logger,) = make_loggers(plain(composed())["logger"], tmp_path, "x")
    log_image(logger, "samples", torch.zeros(4, 6, 1, dtype=torch.uint8), 7)
    logger.save()
    (event,) = EventAccumulator(logger.log_dir).Reload().Images("samples")
    assert (event.step, event.width, event.height) == (7, 6, 4)


def test_hyperparameters_say_nothing_of_how_parts_are_called():
    config = {"model": {"aggregate": {"_target_": "a.B", "_partial_": True, "width": 3}}, "seed": 1}
    assert hyperparameters(config, {}) == {"model.aggregate.width": 3, "seed": 1}


def test_the_modules_of_loggers_that_are_not_chosen_are_not_imported():
    assert "wandb" not in sys.modules
    assert "mlflow" not in sys.modules


def test_a_resumed_run_with_more_overrides_goes_on_in_the_same_curves(tmp_path):
    nodes = plain(composed())["logger"]
    (first,) = make_loggers(nodes, tmp_path, "seed=0")
    first.log_metrics({"train/loss": 1.0}, 0)
    first.save()
    (again,) = make_loggers(nodes, tmp_path, "seed=0,checkpoint_every=0", resumed=1)
    assert again.log_dir == first.log_dir
