"""Training on several devices that share the tasks of every step: Lightning's strategy, and its checks.

Rank r of R trains on the tasks r, r + R, ... of a step's batch. Losses and gradients are averaged over
the ranks, so that all of them take the step that one process would take with the whole batch.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from metagen.errors import MetagenError, UsageError
from metagen.variables import RANKS

NUMBERS = (
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "WORLD_SIZE", "RANK", "LOCAL_RANK",
    "NODE_RANK", "MASTER_PORT",
)  # fmt: skip
"""Variables by which SLURM and torchrun number ranks."""


class TaskParallel(DDPStrategy):
    """Average the gradients of all ranks after the backward pass, in one message.

    Lightning's wrapper of the module would instead wait for a gradient of every parameter, which
    learners with an inner loop do not have, and hook into graphs that are none of its business.
    """

    def __init__(self) -> None:
        ours = LightningEnvironment() if RANKS in os.environ else None
        super().__init__(cluster_environment=ours)

    def configure_ddp(self) -> None:
        """Start all ranks from the parameters of rank 0."""
        assert self.lightning_module is not None
        for tensor in self.lightning_module.state_dict().values():
            dist.broadcast(tensor, 0)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Replace every gradient by its mean over the ranks."""
        assert self.lightning_module is not None
        grads = [p.grad for p in self.lightning_module.parameters() if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.world_size
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Go on at once: no rank reads what another one writes, and one that was interrupted is not met."""


def devices(trainer: Mapping[str, Any]) -> int:
    """Return how many processes a machine has, or 1 where the trainer is no parallel one.

    Raises:
        MetagenError: several devices without ``trainer=ddp``, or a number that cannot be read.
    """
    asked = trainer["devices"]
    if asked in ("auto", -1, "-1"):
        found = 1 if on_cpu(trainer) or not trainer.get("strategy") else torch.cuda.device_count()
    elif isinstance(asked, int):
        found = asked
    else:
        found = len(asked.split(",") if isinstance(asked, str) else asked)
    if found < 1:
        raise MetagenError(f"trainer.devices={asked}: expected a number of 1 or more, or auto")
    if found * int(trainer.get("num_nodes", 1)) > 1 and not trainer.get("strategy"):
        raise MetagenError(f"trainer.devices={asked}: several devices share their tasks under trainer=ddp")
    return found


def ranks(trainer: Mapping[str, Any]) -> int:
    """Return how many processes train together, on all machines."""
    return devices(trainer) * int(trainer.get("num_nodes", 1))


def check(count: int, task: Mapping[str, Any]) -> None:
    """Refuse a batch that the ranks cannot share evenly.

    Args:
        count: of the ranks.
        task: its configuration.

    Raises:
        MetagenError: the tasks of a step are no multiple of the ranks, or there is one only.
    """
    if count > 1 and "shots" not in task:
        raise MetagenError(
            f"{count} ranks share the tasks of a step, of which plain training has one: use trainer=gpu"
        )
    if count > 1 and task["batch"] % count:
        raise MetagenError(
            f"task.batch={task['batch']} tasks cannot be shared by {count} ranks: set a multiple, "
            f"such as task.batch={-(-task['batch'] // count) * count}"
        )


def alone(trainer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of a trainer for one process on one device, which evaluates."""
    if ranks(trainer) == 1:
        return trainer
    asked = trainer["devices"]
    device = [asked[0]] if isinstance(asked, list) else 1
    return {**trainer, "devices": device, "num_nodes": 1, "strategy": "auto"}


def started_elsewhere() -> bool:
    """Return whether SLURM or torchrun started this process as one of several ranks."""
    return RANKS not in os.environ and ("TORCHELASTIC_RUN_ID" in os.environ or _number("SLURM_NTASKS", 1) > 1)


def first() -> bool:
    """Return whether this process is the one that writes: the only one, or rank 0."""
    if RANKS in os.environ:
        return _number("LOCAL_RANK", 0) == 0 and _number("NODE_RANK", 0) == 0
    if started_elsewhere():
        return _number("RANK", _number("SLURM_PROCID", 0)) == 0
    return _number("NODE_RANK", 0) == 0


def check_environment() -> None:
    """Refuse numbers of ranks in the environment that are none; Lightning reads them, too.

    Raises:
        UsageError: one is no whole number.
    """
    for variable in NUMBERS:
        text = os.environ.get(variable, "0")
        if not text.isdigit():
            raise UsageError(f"{variable}={text}: expected a number; unset it, or start by srun or torchrun")


def _number(variable: str, usual: int) -> int:
    """Return a whole number of the environment, or what is usual where it is none."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else usual


def check_accelerator(trainer: Mapping[str, Any]) -> None:
    """Refuse a trainer on a GPU where torch finds none.

    Raises:
        MetagenError: there is none.
    """
    if trainer["accelerator"] in ("gpu", "cuda") and not torch.cuda.is_available():
        raise MetagenError(
            f"trainer.accelerator={trainer['accelerator']}: torch finds no GPU here; use trainer=cpu, "
            f"or install a torch that supports yours"
        )


def on_cpu(trainer: Mapping[str, Any]) -> bool:
    """Return whether a trainer would run on a CPU here."""
    return trainer["accelerator"] == "cpu" or not torch.cuda.is_available()
