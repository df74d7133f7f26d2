"""Training in several processes that share the tasks of every step: ``trainer=ddp``.

Rank r of R trains on the tasks r, r + R, ... of a step's batch. Losses and gradients are averaged over
the ranks, so that all of them take the step that one process would take with the whole batch. Rank 0
alone evaluates and writes; the others get their configuration from it and make no folder.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment

from metagen.errors import MetagenError
from metagen.runs.run import Run
from metagen.training.parallel import devices, on_cpu, started_elsewhere
from metagen.variables import RANKS

GRACE = 20.0
"""Seconds that a rank gets to end by itself."""


@contextmanager
def together(run: Run) -> Iterator[None]:
    """Start the other ranks of a run on this machine, and end them with the block: a training.

    Raises:
        MetagenError: a rank ended with an error, or nobody said where the first machine is.
    """
    trainer = run.config["trainer"]
    count, nodes = devices(trainer), int(trainer.get("num_nodes", 1))
    if count * nodes == 1 or RANKS in os.environ or started_elsewhere():
        yield
        return
    threads = max(1, torch.get_num_threads() // count) if on_cpu(trainer) else torch.get_num_threads()
    with _surroundings(threads, {**_address(nodes), RANKS: "1", "LOCAL_RANK": "0"}):
        others = _Others(run, count)
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

    def __init__(self, run: Run, count: int) -> None:
        self.processes = [_start(run.to_json(), rank) for rank in range(1, count)]
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


def _start(run: str, rank: int) -> "subprocess.Popen[str]":
    """Start a rank, in a session of its own: Ctrl-C is for rank 0, which then ends the others."""
    threads = str(torch.get_num_threads())
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "metagen.cli.rank"],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": threads},
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(run + "\n")
    process.stdin.flush()
    return process
