"""A training that has diverged says so."""

import logging
from types import SimpleNamespace

import pytest
import torch

from metagen.training.divergence import Divergence
from metagen.training.progress import duration


def trainer_at(step, metrics):
    metrics = {name: torch.tensor(float(loss)) for name, loss in metrics.items()}
    return SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        callback_metrics=metrics,
        global_step=step,
        log_every_n_steps=1,
    )


def validated(losses, train=None, **kwargs):
    """A callback that has seen these validation losses."""
    watch = Divergence("try a smaller optimizer.lr", **kwargs)
    for step, loss in enumerate(losses):
        trainer = trainer_at(
            step, {"val/loss": loss} | ({} if train is None else {"train/loss": train[step]})
        )
        watch.on_train_batch_end(trainer)
        watch.on_validation_end(trainer, None)
    return watch


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ([5.0, 4.0, 6.0, 14.0, 3.0], ""),
        ([5.0, 16.0, 16.0], ""),
        ([5.0, 16.0, 16.0, 16.0], "val/loss 16 is far above its start 5 for 3 validations"),
        ([5.0, 16.0, 16.0, 4.0, 16.0], ""),
        ([-5.0, 4.0, 4.0, 4.0], ""),
        ([-5.0, 6.0, 6.0, 6.0], "val/loss 6 is far above its start -5 for 3 validations"),
        ([0.0, 2.5, 2.5, 2.5], "val/loss 2.5 is far above its start 0 for 3 validations"),
        ([5.0, float("nan")], "val/loss is nan"),
        ([float("nan"), 5.0, 4.0], ""),
        ([5.0, float("inf")], "val/loss is inf"),
    ],
)
def test_what_counts_as_diverged(losses, found):
    assert validated(losses).found == found


def test_the_training_loss_counts_too_from_its_first_value():
    found = validated([2.0] * 4, train=[1.0, 6e3, 6e3, 6e3]).found
    assert found == "train/loss 6000 is far above its start 1 for 3 validations"


def test_one_validation_far_above_the_first_training_loss_is_enough_at_the_end():
    """The first validation may come when all is lost: its own start would hide that."""
    watch = validated([6e3, 6e3], train=[700.0, 5e3])
    assert watch.found == ""
    watch.on_train_end(trainer_at(2, {"val/loss": 6e3, "train/loss": 5e3}), None)
    assert watch.found == "val/loss 6000 is far above its start 700 for 2 validations"
    watch = validated([5.0, 16.0])
    watch.on_train_end(trainer_at(2, {"val/loss": 16.0}), None)
    assert watch.found == "val/loss 16 is far above its start 5"
    watch = validated([5.0, 16.0, 4.0])
    watch.on_train_end(trainer_at(3, {"val/loss": 4.0}), None)
    assert watch.found == ""


def test_a_training_without_validation_is_judged_by_its_loss():
    watch = Divergence("", validated=False)
    for step, loss in enumerate([1.0, 9.0, 9.0]):
        watch.on_train_batch_end(trainer_at(step, {"train/loss": loss}))
        assert watch.found == ""
    watch.on_train_batch_end(trainer_at(3, {"train/loss": 9.0}))
    assert watch.found == "train/loss 9 is far above its start 1 for 3 looks"
    watch.on_train_batch_end(trainer_at(4, {"train/loss": float("nan")}))
    assert watch.found == "train/loss is nan"


def test_a_training_loss_that_tells_nothing_is_not_looked_at():
    assert validated([5.0] * 4, train=[1.0, 6e3, 6e3, 6e3], told=False).found == ""
    assert validated([5.0, float("nan")], told=False).found == "val/loss is nan"


def test_it_warns_while_it_happens_with_the_remedy(caplog):
    with caplog.at_level(logging.WARNING):
        watch = validated([5.0, float("nan")])
    assert caplog.messages == ["step 1: val/loss is nan, the training diverges: try a smaller optimizer.lr"]
    again = Divergence("")
    again.load_state_dict(watch.state_dict())
    assert (again.found, again.starts) == (watch.found, {"val/loss": 5.0})


def test_times_in_their_two_largest_units():
    assert [duration(s) for s in (0.4, 59, 60, 3599, 3600)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min",
    ]  # fmt: skip
