"""One training of a recipe: in a process of its own, which ends where it takes too much memory."""

import math
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import Callback

from metagen.config.compose import compose, resolved
from metagen.errors import MetagenError
from metagen.jobs.build import build
from metagen.jobs.process import quiet
from metagen.training.divergence import far_above

GIB = 2**30
AVERAGED = 20
"""Last training losses, of which the end is the mean: single tasks differ."""
PLAIN = ("logger=none", "trainer.enable_progress_bar=false", "+trainer.limit_val_batches=0")


class Row(NamedTuple):
    """What came of a training.

    start, end:         training loss of the first step, and the mean of the last steps.
    val_start, val_end: loss of one batch of validation episodes after adaptation.
                        None where nothing is trained, or validated.
    peak, seconds:      resident memory in GB at most, and the time.
    result:             ``passes``, or what went wrong.
    """

    start: float | None = None
    end: float | None = None
    val_start: float | None = None
    val_end: float | None = None
    peak: float = 0.0
    seconds: float = 0.0
    result: str = "passes"


class Losses(Callback):
    """Keeps the training losses, and ends at the first that is not finite."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        self.seen.append(float(loss.detach()))
        trainer.should_stop = not math.isfinite(self.seen[-1])

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not all(g.isfinite().all() for g in grads):
            self.seen[-1] = math.nan
            trainer.should_stop = True


def trained(overrides: Sequence[str], steps: int) -> Row:
    """Return what becomes of ``steps`` steps, in this process; nothing is written."""
    length = [f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}"]
    setup = build(resolved(compose([*overrides, *PLAIN, *length]).config))
    experiment, val, losses = setup.experiment, setup.data.streams.val, Losses()
    batch = None if val is None else val.batch(0)
    if not experiment.learner.meta_trained:  # a control: the steps of its adaptation are all there is
        before, after = (validated(experiment, batch, taken) for taken in (0, None))
        return judged(Row(val_start=before, val_end=after), [])
    before = validated(experiment, batch)
    trainer = setup.trainers.training(Path(os.devnull).parent, callbacks=[losses])
    trainer.fit(experiment, datamodule=setup.data)
    row = Row(losses.seen[0], statistics.mean(losses.seen[-AVERAGED:]), before)
    return judged(row._replace(val_end=validated(experiment, batch)), losses.seen)


def validated(experiment: Any, batch: Any, steps: int | None = None) -> float | None:
    """Return the loss of a batch of validation episodes; None where there is none."""
    if batch is None:
        return None
    with torch.no_grad():
        return float(experiment.query_loss(batch, steps))


def judged(row: Row, losses: Sequence[float]) -> Row:
    """Return a row with what is wrong with it."""
    if not all(map(math.isfinite, losses)):
        return row._replace(result=f"NaN at step {len(losses) - 1}")
    for name, start, end in (("loss", row.start, row.end), ("validation", row.val_start, row.val_end)):
        if start is None or end is None:
            continue
        if not math.isfinite(end):
            return row._replace(result=f"{name} is {end}")
        # A control that fits three images too well on its own has not diverged.
        if losses and far_above(end, start):
            return row._replace(result=f"{name} ends far above its start")
    return row


def measured(overrides: Sequence[str], steps: int, most: float = 4.0, longest: float = math.inf) -> Row:
    """Return what becomes of a training in a process of its own, with one thread.

    Args:
        overrides: what is trained.
        steps: how many steps.
        most: memory in GB; a process that takes more is ended.
        longest: seconds after which it is ended, too.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    clock = time.monotonic()
    process = context.Process(target=_child, args=(theirs, list(overrides), steps))
    process.start()
    theirs.close()
    peak, row = 0.0, None
    try:
        while row is None:
            if ours.poll(0.2):
                row = ours.recv()
            peak, taken = max(peak, resident(process.pid)), time.monotonic() - clock
            if row is None and (peak > most or taken > longest):
                row = Row(result=f"more than {most:g} GB" if peak > most else f"more than {longest:g} s")
    except EOFError:
        row = Row(result="the process was killed")
    finally:
        process.kill()
        process.join()
    peak = max(peak, row.peak)
    if row.result == "passes" and peak > most:
        row = row._replace(result=f"more than {most:g} GB")
    return row._replace(peak=peak, seconds=time.monotonic() - clock)


def _child(pipe: Connection, overrides: list[str], steps: int) -> None:
    torch.set_num_threads(1)
    quiet()
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        row = trained(overrides, steps)
    except MetagenError as error:
        row = Row(result=f"refused: {error}")
    except Exception as error:
        row = Row(result=f"{type(error).__name__}: {error}")
    unit = 1 if sys.platform == "darwin" else 1024
    pipe.send(row._replace(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB))


def resident(pid: int | None) -> float:
    """Return the memory of a process in GB, where Linux tells it; else 0."""
    try:
        words = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / GIB
