"""The arguments of Lightning's Trainer: which of them a run takes, and what they ask of it.

Every argument works as Lightning documents it, or is refused in a line that says why. A run fills in some of
them itself, and an episode that never ends has no use for others.
"""

import re
from collections.abc import Mapping
from typing import Any

from metagen.errors import UsageError
from metagen.ranges import shown

REFUSED = {
    "callbacks": "choose them by callbacks=[ema,early_stopping], or +callbacks.NAME._target_=CLASS",
    "logger": "choose loggers by logger=[tensorboard,csv], logger=none, or +logger.NAME._target_=CLASS",
    "plugins": "a run has its own, which writes checkpoints whole or not at all; trainer.precision and "
    "trainer.strategy choose the others",
    "default_root_dir": "a run writes into its own folder: name it by hydra.run.dir",
    "enable_checkpointing": "a run always keeps its best and its last state; checkpoint_every says how often",
    "fast_dev_run": "every run is recorded, and Lightning would suppress that; use trainer=debug "
    "task.episodes=2 for a quick try",
    "limit_test_batches": "the test episodes are the same for all runs; task.episodes=N asks for fewer",
    "limit_predict_batches": "nothing is predicted; metagen generate draws images",
    "barebones": "it switches off what a run records; use logger=none trainer.enable_progress_bar=false",
    "sync_batchnorm": "the ranks of a run share tasks, not batches; the statistics are those of a task",
    "reload_dataloaders_every_n_epochs": "episodes are drawn by number; nothing is reloaded",
    "model_registry": "a run keeps its checkpoints in its own folder",
    "enable_autolog_hparams": "hyperparameters are written with the test's metrics",
    "inference_mode": "adaptation differentiates at test, too, which inference_mode forbids; leave it false",
}
"""Arguments that a run does not take, and what to do instead."""
USUAL: Mapping[str, Any] = {
    "fast_dev_run": (False, 0), "barebones": (False,), "sync_batchnorm": (False,), "inference_mode": (False,),
    "reload_dataloaders_every_n_epochs": (0,), "enable_autolog_hparams": (True,),
    "limit_test_batches": (1.0,), "enable_checkpointing": (True,),
}  # fmt: skip
"""Values of theirs that ask for what happens anyway; null is one for all of them."""
STRATEGY = "metagen.training.parallel.TaskParallel"


def check_arguments(node: Mapping[str, Any]) -> None:
    """Refuse arguments that a run cannot do as Lightning documents them.

    Args:
        node: the configuration of a ``lightning.Trainer``.

    Raises:
        UsageError: there is one.
    """
    for name, why in REFUSED.items():
        value = node.get(name)
        usual = [one for one in USUAL.get(name, ()) if type(one) is type(value)]  # 1 batch is not all: 1.0
        if value is None or value in usual:
            continue
        raise UsageError(f"trainer.{name}={shown(value)}: {why}")
    strategy = node.get("strategy")
    named = strategy.get("_target_") if isinstance(strategy, Mapping) else strategy
    if named not in (None, "auto", STRATEGY):
        raise UsageError(
            f"trainer.strategy={named}: Lightning's waits for gradients that an inner loop does not make; "
            "trainer=ddp shares the tasks of a step among processes"
        )


def check_length(node: Mapping[str, Any], endless: bool) -> None:
    """Refuse a training whose number of steps is unknown, and intervals that do not fit it.

    Args:
        node: the configuration of a ``lightning.Trainer``.
        endless: whether an epoch of the task never ends, as one of episodes.

    Raises:
        UsageError: see there.
    """
    steps, epochs, least = node.get("max_steps", -1), node.get("max_epochs"), node.get("min_steps") or 0
    if not isinstance(steps, int) or steps < 1:
        raise UsageError(
            f"trainer.max_steps={steps}: learning-rate schedules and records go by the number of steps: "
            "set it; trainer.max_epochs and trainer.max_time may end the training before"
        )
    if least > steps:
        raise UsageError(f"trainer.min_steps={least} is more than trainer.max_steps={steps}: lower it")
    text = node.get("max_time")
    if isinstance(text, str) and not re.fullmatch(r"\d{1,6}(:\d{1,6}){3}", text):
        raise UsageError(f"trainer.max_time={text}: expected DAYS:HOURS:MINUTES:SECONDS, such as 00:01:30:00")
    limit, overfit = node.get("limit_train_batches"), node.get("overfit_batches") or 0
    for name, value in (("limit_train_batches", limit), ("overfit_batches", overfit or None)):
        _check_batches(name, value, endless)
    if endless and epochs not in (None, -1) and limit is None and not overfit:
        raise UsageError(
            f"trainer.max_epochs={epochs}: an epoch of episodes never ends; set trainer.max_steps, or the "
            "length of an epoch by trainer.limit_train_batches"
        )
    interval, accumulated = node.get("val_check_interval"), node.get("accumulate_grad_batches", 1)
    if isinstance(interval, float) and endless and limit is None and not overfit:
        raise UsageError(
            f"trainer.val_check_interval={interval}: a share of an epoch, which never ends here; expected a "
            "number of batches"
        )
    if isinstance(interval, int) and interval > 0 and interval % accumulated:
        more = -(-interval // accumulated) * accumulated
        raise UsageError(
            f"trainer.val_check_interval={interval}: no multiple of accumulate_grad_batches={accumulated}, "
            f"so that a validation would fall into a step: set {more}"
        )


def _check_batches(name: str, value: Any, endless: bool) -> None:
    """Refuse a share of batches that cannot be counted, and none at all."""
    if value is None:
        return
    if value == 0 or (isinstance(value, float) and not value.is_integer() and (endless or "over" in name)):
        raise UsageError(f"trainer.{name}={value}: expected a number of batches, 1 or more")


def translated(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as Lightning's Trainer takes them here.

    ``overfit_batches=N`` becomes N batches an epoch, in training and in validation, which the data repeat:
    Lightning would look for a sampler to switch off, and streams of episodes have none.
    """
    out = {key: value for key, value in node.items() if key not in REFUSED}
    out["inference_mode"] = False
    if count := overfit(node):
        del out["overfit_batches"]
        out["limit_train_batches"] = out["limit_val_batches"] = count
    return out


def overfit(node: Mapping[str, Any]) -> int | None:
    """Return how many training batches are repeated; None where they go on."""
    return int(node.get("overfit_batches") or 0) or None


def planned_steps(node: Mapping[str, Any], batches: int | None) -> int:
    """Return the steps after which a training ends that nothing else ends.

    Args:
        node: the configuration of a ``lightning.Trainer``.
        batches: of an epoch; None where it never ends.
    """
    limit, epochs = overfit(node) or node.get("limit_train_batches"), node.get("max_epochs")
    if isinstance(limit, float) and batches is not None:
        limit = int(limit * batches)  # a share, as Lightning rounds it
    counts = [count for count in (limit, batches) if count is not None]
    if epochs in (None, -1) or not counts:
        return int(node["max_steps"])
    steps_an_epoch = -(-int(min(counts)) // int(node.get("accumulate_grad_batches", 1)))
    return min(int(node["max_steps"]), int(epochs) * steps_an_epoch)
