"""Trainings in processes that can be killed, forked from one that has imported everything already."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "metagen.jobs.train", "metagen.jobs.resume", "torch.utils.tensorboard", "matplotlib.pyplot",
    "sklearn.datasets", "metagen.data.digits", "metagen.models.vae", "metagen.learners.meta_learner",
])  # fmt: skip

QUICK = [
    "task.episodes=2", "task.val_episodes=2", "task.batch=2", "trainer.enable_progress_bar=false",
    "model.channels=8", "model.hidden=16", "metric=[negative_elbo]", "learner=meta_sgd",
    "samples=2", "learner.steps=1", "learner.test_steps=1", "scheduler=cosine", "checkpoint_every=0",
]  # fmt: skip


@contextmanager
def inside(folder: Path, banks: Path | None = None) -> Iterator[Path]:
    """Work in a folder, with a cache of its own, but for the ``banks`` of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("METAGEN_CACHE", str(folder / "cache"))
        if banks:
            (folder / "cache").mkdir(exist_ok=True)
            (folder / "cache/banks").symlink_to(banks / "banks")
        yield folder


def trained_run(folder: Path, overrides: Sequence[str]) -> Path:
    """Train by the command; the run's folder."""
    with inside(folder):
        assert command(["train", *overrides, "hydra.run.dir=run"]) == 0
    return folder / "run"


class Job:
    """A process that runs ``function(*args)`` in ``folder`` and tells of every training step that begins."""

    def __init__(self, folder: Path, function, *args):
        self.heard, told = CONTEXT.Pipe(duplex=False)
        self.errors = folder / "stderr.txt"
        self.process = CONTEXT.Process(target=_child, args=(told, str(folder), function, args))
        self.process.start()
        told.close()

    def until(self, step: int) -> bool:
        """Wait for a training step to begin (-1: the first episodes of the test); False if it ends before."""
        try:
            while self.heard.recv() != step:
                pass
            return True
        except EOFError:
            return False

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def code(self) -> int:
        """Wait for the end; the exit code, or minus the signal that killed it."""
        self.process.join(60)
        assert self.process.exitcode is not None, "it does not end"
        return self.process.exitcode


def command(argv):
    from metagen.cli.main import run

    return run(argv)


def trained(described):
    """Train without the evaluation and its rehearsal, as a resumed job."""
    from dataclasses import replace

    from metagen.jobs import build, train
    from metagen.runs.run import Run

    train._evaluate = lambda *args: 0.0
    build.rehearse = lambda *args: None
    train.train(replace(Run.from_json(described), folder=Path.cwd()), lambda text: None)
    return 0


def slow_step(argv):
    from metagen.training.module import Experiment

    step = Experiment.training_step

    def training_step(self, batch, index):
        loss = step(self, batch, index)
        for _ in range(300 if self.global_step == 2 else 0):
            time.sleep(0.1)
        return loss

    Experiment.training_step = training_step
    return command(argv)


def in_background(argv):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return command(argv)


def on_a_full_disk(argv, limit):
    from metagen.training.module import Experiment

    step = Experiment.training_step

    def training_step(self, batch, index):
        if self.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return step(self, batch, index)

    Experiment.training_step = training_step
    return command(argv)


def _child(told, folder, function, args):
    import torch

    from metagen.training.module import Experiment

    os.setsid()
    os.chdir(folder)
    os.dup2(os.open("stderr.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    os.dup2(os.open("stdout.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    step, test = Experiment.training_step, Experiment.test_step

    def training_step(self, batch, index):
        told.send(self.global_step)
        return step(self, batch, index)

    def test_step(self, batch, index):
        told.send(-1)
        return test(self, batch, index)

    Experiment.training_step, Experiment.test_step = training_step, test_step
    sys.exit(function(*args))
