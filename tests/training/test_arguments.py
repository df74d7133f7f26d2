"""Every argument of Lightning's Trainer works as documented here, or is refused in a line."""

import inspect

import lightning as L
import pytest
from conftest import composed

from metagen.config.compose import plain
from metagen.errors import MetagenError
from metagen.ranges import shown
from metagen.training.arguments import REFUSED, check_arguments, check_length, planned_steps, translated
from metagen.training.trainers import Trainers

SIGNATURE = inspect.signature(L.Trainer.__init__).parameters


def node(**changes):
    return plain(composed())["trainer"] | changes


def test_what_is_refused_are_arguments_of_lightning():
    assert set(REFUSED) <= set(SIGNATURE)


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_that_a_run_does_not_take_is_refused_with_what_to_do(name):
    asked = {
        "inference_mode": True,
        "enable_checkpointing": False,
        "enable_autolog_hparams": False,
        "logger": False,
    }
    usual = SIGNATURE[name].default
    value = asked.get(name, True if isinstance(usual, bool) else 3)
    with pytest.raises(MetagenError, match=rf"trainer\.{name}={shown(value)}: .") as refused:
        check_arguments(node(**{name: value}))
    assert "\n" not in str(refused.value)
    check_arguments(node(**{name: None}))
    if name not in ("inference_mode",):
        check_arguments(node(**{name: usual}))


def test_one_batch_is_not_all_of_them():
    with pytest.raises(MetagenError, match="limit_test_batches=1: the test episodes are the same"):
        check_arguments(node(limit_test_batches=1))
    check_arguments(node(limit_test_batches=1.0))


@pytest.mark.parametrize(
    "strategy", ["ddp", "fsdp", {"_target_": "lightning.pytorch.strategies.DDPStrategy"}]
)
def test_strategies_that_wrap_the_module_are_refused(strategy):
    with pytest.raises(MetagenError, match="trainer=ddp"):
        check_arguments(node(strategy=strategy))


LENGTHS = [
    ({"max_steps": -1}, True, "max_steps=-1"),
    ({"max_steps": 3, "min_steps": 5}, True, "min_steps=5 is more than trainer.max_steps=3"),
    ({"max_time": "soon"}, True, "max_time=soon: expected DAYS:HOURS:MINUTES:SECONDS"),
    ({"max_steps": -1, "max_epochs": 3}, True, "max_steps=-1"),
    ({"max_steps": -1, "max_epochs": 3}, False, "max_steps=-1"),
    ({"max_epochs": 3}, True, "an epoch of episodes never ends"),
    ({"limit_train_batches": 0}, True, "limit_train_batches=0"),
    ({"limit_train_batches": 0.5}, True, "limit_train_batches=0.5"),
    ({"overfit_batches": 0.1}, False, "overfit_batches=0.1"),
    ({"val_check_interval": 0.25}, True, "never ends here"),
    ({"val_check_interval": 10, "accumulate_grad_batches": 4}, True, "set 12"),
]


@pytest.mark.parametrize(("changes", "endless", "words"), LENGTHS, ids=lambda value: str(value))
def test_a_length_that_nobody_knows_is_refused(changes, endless, words):
    with pytest.raises(MetagenError, match=words):
        check_length(node(**changes), endless)


@pytest.mark.parametrize(
    ("changes", "batches", "steps"),
    [
        ({"max_steps": 50}, None, 50),
        ({"max_steps": 50, "max_epochs": 3}, 10, 30),
        ({"max_steps": 50, "max_epochs": 3, "accumulate_grad_batches": 4}, 10, 9),
        ({"max_steps": 50, "max_epochs": 3, "limit_train_batches": 4}, None, 12),
        ({"max_steps": 50, "max_epochs": 3, "limit_train_batches": 0.5}, 10, 15),
        ({"max_steps": 50, "max_epochs": 3, "limit_train_batches": 1.0}, 10, 30),
        ({"max_steps": 50, "max_epochs": 3, "limit_train_batches": 1}, 10, 3),
        ({"max_steps": 20, "max_epochs": -1, "overfit_batches": 2}, None, 20),
    ],
    ids=lambda value: str(value),
)
def test_the_planned_steps_are_those_after_which_lightning_ends(changes, batches, steps):
    check_length(node(**changes), endless=batches is None)
    assert planned_steps(node(**changes), batches) == steps


def test_overfitting_is_a_number_of_batches_an_epoch_which_the_data_repeat(tmp_path):
    asked = translated(node(overfit_batches=2))
    assert (asked["limit_train_batches"], asked["limit_val_batches"]) == (2, 2)
    assert "overfit_batches" not in asked
    assert Trainers(node(overfit_batches=2)).overfit == 2
    assert Trainers(node()).overfit is None
    trainer = Trainers(node(limit_val_batches=0.5, accumulate_grad_batches=3)).training(tmp_path)
    assert (trainer.limit_val_batches, trainer.accumulate_grad_batches) == (0.5, 3)
