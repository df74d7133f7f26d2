"""Checkpoints: what of a damaged one is still of use, and which validation is the best."""

import logging
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metagen.cli.main import run
from metagen.errors import MetagenError
from metagen.jobs import train as jobs
from metagen.training.checkpoints import BEST, LAST, DamagedError, Keeper, newest, read_checkpoint
from metagen.training.module import Experiment

TRAIN = [
    "train", "task.episodes=2", "task.val_episodes=2", "task.batch=2", "trainer.max_steps=8",
    "trainer.val_check_interval=4", "trainer.log_every_n_steps=4", "trainer.enable_progress_bar=false",
    "model.channels=8", "model.hidden=16", "learner=maml", "learner.steps=1", "learner.test_steps=1",
    "metric=[negative_elbo]", "samples=2", "hydra.run.dir=run",
]  # fmt: skip


@pytest.fixture(scope="module")
def unevaluated(tmp_path_factory):
    """A run whose process ended after the training, before the evaluation; its folder and its losses."""
    folder, losses = tmp_path_factory.mktemp("unevaluated"), []
    step = Experiment.training_step

    def training_step(self, batch, index):
        losses.append(float(step(self, batch, index).detach()))
        return step(self, batch, index)

    def ended(*args):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(jobs, "_evaluate", ended)
        patch.setattr(Experiment, "training_step", training_step)
        assert run(TRAIN) == 130
    return folder / "run", losses


def test_a_point_of_the_training_curve_is_its_own_steps_loss(unevaluated):
    """Of steps 0 to 7 every fourth is written: 3 and 7."""
    folder, losses = unevaluated
    (curves,) = (folder / "tensorboard").iterdir()
    events = EventAccumulator(str(curves)).Reload().Scalars("train/loss")
    assert [event.step for event in events] == [3, 7]
    assert [event.value for event in events] == pytest.approx([losses[3], losses[7]], rel=1e-6)


@pytest.fixture
def run_folder(unevaluated, tmp_path, monkeypatch):
    shutil.copytree(unevaluated[0], tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_a_damaged_best_checkpoint_is_no_dead_end(run_folder, capsys, caplog):
    best = run_folder / "checkpoints" / BEST
    best.write_bytes(best.read_bytes()[:1000])
    assert run(["evaluate", "run"]) == 1
    assert f"metagen train --resume {best.parent.parent.relative_to(run_folder.parent)} goes on" in (
        capsys.readouterr().err
    )
    assert run(["train", "--resume", "run"]) == 0
    assert (run_folder / "metrics.json").is_file()
    assert best.with_name("best.ckpt.unreadable").is_file()
    states = [read_checkpoint(best.with_name(name))["state_dict"] for name in (BEST, LAST)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_damaged_best_checkpoint_of_a_finished_run_names_the_last_one(run_folder, capsys):
    checkpoints = run_folder / "checkpoints"
    (run_folder / "metrics.json").write_text("{}")
    (checkpoints / BEST).write_bytes(b"")
    assert run(["evaluate", "run"]) == 1
    assert "metagen evaluate run checkpoint=run/checkpoints/last.ckpt takes the last one" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("state_dict", None), ("state_dict", [1]), ("state_dict", {"a": "x"}), ("global_step", "7"),
     (None, [1])],
)  # fmt: skip
def test_a_valid_archive_of_something_else_is_no_checkpoint(key, value, run_folder):
    path = run_folder / "checkpoints" / LAST
    saved = value if key is None else read_checkpoint(path) | {key: value}
    torch.save(saved, path)
    with pytest.raises(DamagedError, match="is no readable checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("optimizer_states", ...), ("optimizer_states", [3]), ("pytorch-lightning_version", ...), ("loops", {}),
     ("callbacks", []), ("lr_schedulers", None), ("epoch", "x")],
)  # fmt: skip
def test_a_checkpoint_from_which_training_cannot_go_on_is_put_aside(key, value, run_folder, caplog):
    path = run_folder / "checkpoints" / LAST
    saved = read_checkpoint(path) | {key: value}
    if value is ...:
        del saved[key]
    torch.save(saved, path)
    with caplog.at_level(logging.WARNING):
        found, steps = newest(path.parent)
    assert (found.name, steps) == (BEST, 8)
    assert key in caplog.text
    assert path.with_name("last.ckpt.unreadable").is_file()


def test_what_may_not_be_read_is_not_taken_for_damaged(run_folder, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("metagen.training.checkpoints.zipfile.ZipFile", forbidden)
    with pytest.raises(MetagenError, match="Permission denied"):
        newest(run_folder / "checkpoints")
    assert (run_folder / "checkpoints" / LAST).is_file()


def validated(keeper, score):
    """Let a keeper see a validation; whether it kept the state as the best."""
    kept = []
    keeper.keep = lambda trainer, name: kept.append(name)
    trainer = SimpleNamespace(sanity_checking=False, callback_metrics={"val/loss": torch.tensor(score)})
    keeper.on_validation_end(trainer, None)
    return BEST in kept


def test_any_number_is_better_than_nan(tmp_path):
    keeper = Keeper(tmp_path, 0)
    scores = [math.nan, math.nan, math.inf, 3.0, math.nan, 4.0, 2.0]
    assert [validated(keeper, score) for score in scores] == [True, False, True, True, False, False, True]
    assert keeper.best_model_score == 2.0
