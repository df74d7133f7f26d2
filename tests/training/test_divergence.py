"""A training that has diverged says so."""

import logging
from types import SimpleNamespace

import pytest
import torch

from metagen.training.divergence import Divergence
from metagen.training.progress import duration


def validated(losses, train=None):
    """A callback that has seen these validation losses."""
    watch = Divergence("try a smaller optimizer.lr")
    for step, loss in enumerate(losses):
        metrics = {"val/loss": torch.tensor(loss)} | ({} if train is None else {"train/loss": train[step]})
        trainer = SimpleNamespace(
            sanity_checking=False, is_global_zero=True, callback_metrics=metrics, global_step=step
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
    found = validated([5.0] * 4, train=[torch.tensor(loss) for loss in (1.0, 6e3, 6e3, 6e3)]).found
    assert found == "train/loss 6000 is far above its start 1 for 3 validations"


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
