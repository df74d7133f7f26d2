"""Training in several processes that share the tasks of every step: ``trainer=ddp``.

Rank r of R trains on the tasks r, r + R, ... of a step's batch. Losses and gradients are averaged over
the ranks, so that all of them take the step that one process would take with the whole batch. Rank 0
alone evaluates and writes; the others get their configuration from it and make no folder.
"""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from metagen.errors import MetagenError
from metagen.runtime import leave, quiet

LAUNCHED = "METAGEN_RANKS"
"""Set where the ranks are processes of ours, not of SLURM's or torchrun's."""
GRACE = 20.0
"""Seconds that a rank gets to end by itself."""


class TaskParallel(DDPStrategy):
    """Average the gradients of all ranks after the backward pass, in one message.

    Lightning's wrapper of the module would instead wait for a gradient of every parameter, which
    learners with an inner loop do not have, and hook into graphs that are none of its business.
    """

    def __init__(self) -> None:
        ours = LightningEnvironment() if LAUNCHED in os.environ else None
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
    if found * trainer.get("num_nodes", 1) > 1 and not trainer.get("strategy"):
        raise MetagenError(f"trainer.devices={asked}: several devices share their tasks under trainer=ddp")
    return found


def check(cfg: DictConfig) -> None:
    """Refuse a batch that the ranks cannot share evenly.

    Raises:
        MetagenError: the tasks of a step are no multiple of the ranks, or there is one only.
    """
    ranks = devices(cfg.trainer) * cfg.trainer.get("num_nodes", 1)
    if ranks > 1 and "shots" not in cfg.task:
        raise MetagenError(
            f"{ranks} ranks share the tasks of a step, of which plain training has one: use trainer=gpu"
        )
    if ranks > 1 and cfg.task.batch % ranks:
        raise MetagenError(
            f"task.batch={cfg.task.batch} tasks cannot be shared by {ranks} ranks: set a multiple, "
            f"such as task.batch={-(-cfg.task.batch // ranks) * ranks}"
        )


def alone(cfg: DictConfig) -> DictConfig:
    """Return the configuration for one process on one device, which evaluates."""
    if devices(cfg.trainer) * cfg.trainer.get("num_nodes", 1) == 1:
        return cfg
    asked, single = cfg.trainer.devices, cfg.copy()
    with open_dict(single):
        single.trainer.devices = [asked[0]] if OmegaConf.is_list(asked) else 1
        single.trainer.num_nodes, single.trainer.strategy = 1, "auto"
    return single


def started_elsewhere() -> bool:
    """Return whether SLURM or torchrun started this process as one of several ranks."""
    return LAUNCHED not in os.environ and (
        "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1
    )


def retire(folder: Path) -> float:
    """Leave the evaluation to rank 0; a folder that a rank was given by mistake goes away."""
    if started_elsewhere():
        leave(folder)
    return math.nan


@contextmanager
def together(cfg: DictConfig) -> Iterator[None]:
    """Start the other ranks of this machine, and end them with the block: a training.

    Raises:
        MetagenError: a rank ended with an error, or nobody said where the first machine is.
    """
    count, nodes = devices(cfg.trainer), cfg.trainer.get("num_nodes", 1)
    if count * nodes == 1 or LAUNCHED in os.environ or started_elsewhere():
        yield
        return
    threads = max(1, torch.get_num_threads() // count) if on_cpu(cfg.trainer) else torch.get_num_threads()
    with _surroundings(threads, {**_address(nodes), LAUNCHED: "1", "LOCAL_RANK": "0"}):
        others = _Others(cfg, count)
        try:
            yield
            others.wait()
        except Exception as error:
            others.blame(error)
            raise
        finally:
            others.end()
            if dist.is_initialized():
                dist.destroy_process_group()


@contextmanager
def _surroundings(threads: int, variables: Mapping[str, str]) -> Iterator[None]:
    """Set the threads and variables of the environment, for a while."""
    before, usual = dict(os.environ), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        os.environ.update(variables)
        yield
    finally:
        torch.set_num_threads(usual)
        os.environ.clear()
        os.environ.update(before)


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


def _address(nodes: int) -> dict[str, str]:
    """Return where the ranks meet."""
    if "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
        return {}
    if nodes > 1:
        raise MetagenError(
            f"trainer.num_nodes={nodes}: start it by SLURM or torchrun, or on every machine with MASTER_ADDR "
            f"and MASTER_PORT (of the first one) and NODE_RANK (0 to {nodes - 1}) in the environment"
        )
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(LightningEnvironment().main_port)}


class _Others:
    """The ranks 1, 2, ... of this machine."""

    def __init__(self, cfg: DictConfig, count: int) -> None:
        whole = {"config": OmegaConf.to_container(cfg, resolve=True)}
        whole["hydra"] = OmegaConf.to_container(HydraConfig.get(), enum_to_str=True)
        self.processes = [_start(json.dumps(whole), rank) for rank in range(1, count)]
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self) -> None:
        """Wait for the ranks to end by themselves."""
        for process in self.processes:
            process.wait(GRACE)

    def blame(self, error: Exception) -> None:
        """Raise a MetagenError where ``error`` is but the echo of a rank's."""
        for rank, process in enumerate(self.processes, 1):
            if process.poll():
                raise MetagenError(f"rank {rank} ended with an error, which stands above") from error

    def end(self) -> None:
        """Let no rank outlive the training."""
        self.over.set()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()

    def _watch(self) -> None:
        """End this process where it would wait for a failed rank for ever: no signal ends such a wait."""
        while not self.over.wait(0.5):
            if any(process.poll() for process in self.processes) and not self.over.wait(GRACE):
                sys.stderr.write("metagen: error: a rank ended with an error, which stands above\n")
                self.end()
                os._exit(1)


def _start(whole: str, rank: int) -> "subprocess.Popen[str]":
    """Start a rank, in a session of its own: Ctrl-C is for rank 0, which then ends the others."""
    threads = str(torch.get_num_threads())
    process = subprocess.Popen(
        [sys.executable, "-m", "metagen.ranks"],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": threads},
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(whole + "\n")
    process.stdin.flush()
    return process


def main() -> int:
    """Join a training as one of its ranks; the configuration comes through the standard input."""
    from metagen.cli import guard

    return guard(_join)


def _join() -> int:
    from metagen.train import train

    whole = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow, daemon=True).start()
    hydra = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    OmegaConf.set_struct(hydra.hydra, False)
    hydra.merge_with({"hydra": whole["hydra"]})
    HydraConfig.instance().set_config(hydra)
    quiet()
    train(OmegaConf.create(whole["config"]), lambda text: None)
    return 0


def _follow() -> None:
    """End with rank 0, however that ended: it holds the other end of the standard input."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
