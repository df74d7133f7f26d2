"""What a training says of itself: what it is going to do at its start, and what became of it at its end."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from metagen.jobs.record import Training
from metagen.jobs.setup import Setup
from metagen.runs.run import Run
from metagen.training.divergence import Divergence
from metagen.training.parallel import on_cpu

SUMMARY = "lightning.pytorch.callbacks.model_summary"
"""The logger to which Lightning writes what ``trainer.enable_model_summary`` asks for."""
GOES_ON = {"max_time": " trainer.max_time=null", "max_epochs": " trainer.max_epochs=-1"}
"""What lets a training go on that was ended so."""


def starts(run: Run, setup: Setup) -> str:
    """Return a line that tells what will be done: learner, model, data, device, steps."""
    learner, model = (
        run.choices.get(group) or type(getattr(setup.experiment, group)).__name__
        for group in ("learner", "model")
    )
    bank, test = setup.data.bank.name, setup.data.test_bank.name
    tested = "" if bank == test else f", tested on {test}"
    node = run.config["trainer"]
    device = "the CPU" if on_cpu(node) else "a GPU"
    ranks = setup.trainers.ranks
    device = f"{ranks} processes on {device}" if ranks > 1 else device
    if not setup.planned_steps:
        return f"{learner} adapts {model} to {test} on {device}: nothing is meta-trained"
    classes = len(setup.data.streams.train.classes)
    steps = setup.planned_steps
    return f"trains {learner} with {model} on {bank} ({classes} classes){tested}: {steps} steps on {device}"


def ended_by(trainer: Any, planned: int) -> str | None:
    """Return what ended a training before its planned steps; None where nothing did."""
    if trainer.global_step >= planned:
        return None
    for one in trainer.callbacks:
        if isinstance(one, EarlyStopping) and one.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            return "early_stopping"
        if isinstance(one, Timer) and (one.time_remaining() or 0.0) <= 0.0:
            return "max_time"
    return "a callback" if trainer.should_stop else "max_epochs"


def said_at_the_end(training: Training, divergence: Divergence, folder: Path) -> Iterator[str]:
    """Yield what a training must not keep to itself: that it ended before its steps, or has diverged."""
    if training.ended is not None:
        text = f"the training ended after {training.steps} of {training.planned} steps by {training.ended}"
        more = GOES_ON.get(training.ended)
        yield text if more is None else f"{text}: metagen train --resume {folder}{more} goes on from there"
    if divergence.found:
        yield f"the training ended badly: {divergence.found}; {divergence.advice}"


def say_profile(trainer: Any, echo: Callable[[str], Any]) -> None:
    """Show what a profiler measured, which Lightning would only write into the log."""
    profiler = trainer.profiler
    if profiler.filename is None and (text := profiler.summary()):
        echo(text)


@contextmanager
def showing_the_summary(echo: Callable[[str], Any]) -> Iterator[None]:
    """Show the summary of the modules, which Lightning would only write into the log."""
    handler, source = _Shown(echo), logging.getLogger(SUMMARY)
    level = source.level
    source.addHandler(handler)
    source.setLevel(logging.INFO)
    try:
        yield
    finally:
        source.removeHandler(handler)
        source.setLevel(level)


class _Shown(logging.Handler):
    """Hands messages of a logger to the user."""

    def __init__(self, echo: Callable[[str], Any]) -> None:
        super().__init__(logging.INFO)
        self.show = echo

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message."""
        self.show(record.getMessage().strip("\n"))
