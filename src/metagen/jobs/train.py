"""The jobs behind ``metagen train`` and ``metagen evaluate``."""

import hashlib
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from metagen.config import tuned
from metagen.config.flat import hyperparameters
from metagen.data.datamodule import batches_done
from metagen.errors import MetagenError, TrainingInterruptedError
from metagen.evaluation.evaluation import Evaluation
from metagen.files import write_json
from metagen.functional.device import in_words
from metagen.jobs import ddp
from metagen.jobs.announce import ended_by, said_at_the_end, say_profile, showing_the_summary, starts
from metagen.jobs.build import build, load_checkpoint, start_from
from metagen.jobs.record import Training, write_record
from metagen.jobs.setup import Setup
from metagen.jobs.shown import table_of
from metagen.report.tables import likelihood_table
from metagen.runs.progress import Told, told
from metagen.runs.run import HeldBack, Run
from metagen.training import parallel, signals
from metagen.training.checkpoints import BEST, LAST, newest
from metagen.training.loggers import label, log_curve, log_image, log_test, takes_images
from metagen.training.plateau import StepPlateau
from metagen.training.progress import TimeLeft
from metagen.training.pruning import pruning
from metagen.variables import RANKS

log = logging.getLogger(__name__)
_NAMED = 10
OF_CALLBACKS = ("lightning/pytorch/callbacks/", "lightning/pytorch/tuner/")
"""What fails there was asked for by the configuration."""

Echo = Callable[[str], Any]


def train(run: Run, echo: Echo) -> float:
    """Meta-train, keep the best and the last checkpoint, and evaluate on the test episodes.

    A resumed run goes on from the newest checkpoint in its folder.

    Args:
        run: what to train, and where.
        echo: takes the lines that the user is to see.

    Returns:
        The mean of the task's first metric, for a sweeper; NaN where another rank evaluates.

    Raises:
        MetagenError: bad input, and nothing was written; or a step that fails time and again.
        TrainingInterruptedError: a signal; ``checkpoints/last.ckpt`` is written.
    """
    with HeldBack() as messages:
        setup = build(run.config)
        if setup.start and run.kind == "new":
            start_from(setup.experiment, setup.start)
        if not parallel.first():
            return _train(run, setup, echo, None)
        alone = RANKS not in os.environ and not parallel.started_elsewhere()
        with run.opened(messages, alone), told(run.folder) as progress:
            _say_split(setup, run.folder, echo)
            return _train(run, setup, echo, progress)


def _check_longer(run: Run, steps: int | None, planned: int) -> None:
    """Refuse to call a training done that is to have fewer steps than it has."""
    if steps is not None and 0 < planned < steps:
        raise MetagenError(f"trainer.max_steps={planned}: {run.folder} has {steps} steps already; name more")


def _train(run: Run, setup: Setup, echo: Echo, progress: Told | None) -> float:
    experiment, checkpoints = setup.experiment, run.folder / "checkpoints"
    learner = experiment.learner
    keeper = setup.keeper(checkpoints)
    skips = setup.skips(run.choices.get("learner") or type(learner).__name__)
    if text := tuned.line(run.choices, run.config, run.overrides, run.places):
        echo(text)
    start, steps = newest(checkpoints, experiment) if run.kind == "resumed" else (None, None)
    if start is not None:
        _check_longer(run, steps, setup.planned_steps)
        keeper.saved_step = load_checkpoint(experiment, start)
        echo(f"goes on from step {steps} ({start})")
    elif setup.start:
        if run.kind == "resumed":
            start_from(experiment, setup.start)
        if not learner.meta_trained:
            echo(f"starts as {setup.start}: this is fine-tuning, not training from scratch")
    echo(starts(run, setup))
    validated = setup.data.streams.val is not None
    divergence = setup.divergence()
    tell = None if progress is None else progress.tell
    with ddp.together(run) if learner.meta_trained else nullcontext():
        watching = [StepPlateau(), TimeLeft(setup.planned_steps, tell), divergence, *setup.samples_shown()]
        trainer = setup.trainers.training(
            run.folder, label(run.overrides), [keeper, skips, *watching, *pruning()], steps
        )
        if learner.meta_trained:
            with (
                _interruptible(trainer, f"metagen train --resume {run.folder}"),
                signals.deferred(),
                showing_the_summary(echo),
            ):
                _fit(trainer, setup, start)
            say_profile(trainer, echo)
        else:
            trainer.strategy.connect(experiment)
    if not trainer.is_global_zero:
        return math.nan
    # Training may end between two validations, or before the first one.
    if keeper.saved_step != trainer.global_step:
        keeper.keep(trainer, LAST)
    if not validated or keeper.best_model_score is None:
        keeper.keep(trainer, BEST)
    load_checkpoint(experiment, checkpoints / BEST)
    training = Training(
        trainer.global_step, setup.planned_steps, ended_by(trainer, setup.planned_steps),
        bool(divergence.found), keeper.seconds, _rate(setup, batches_done(trainer), keeper.seconds),
        trainer.world_size, skips.total, keeper.resumed,
    )  # fmt: skip
    for line in said_at_the_end(training, divergence, run.folder):
        log.warning("%s", line)
    if tell is not None:
        tell(doing="tests", step=trainer.global_step, left=None)
    tester = trainer if trainer.world_size == 1 else setup.trainers.testing(run.folder, label(run.overrides))
    with _interruptible(tester, f"metagen train --resume {run.folder}"):
        return _evaluate(run, setup, tester, training, echo)


def _say_split(setup: Setup, folder: Path, echo: Echo) -> None:
    """Keep the split by class with the run; say it where no committed file tells it."""
    sides = setup.data.streams.split
    write_json(folder / "split.json", sides)
    if not setup.data.data.committed:
        counts = ", ".join(f"{side} {len(names)}" for side, names in sides.items())
        tests = ", ".join(sides["test"][:_NAMED]) + (", ..." if len(sides["test"]) > _NAMED else "")
        echo(f"classes {counts} (tested: {tests}); all names are in {folder / 'split.json'}")


def evaluate(run: Run, echo: Echo) -> float:
    """Evaluate the checkpoint that the configuration names on the test episodes, in a folder of its own.

    Returns:
        The mean of the task's first metric.

    Raises:
        MetagenError: bad input, and nothing was written.
        TrainingInterruptedError: a signal; nothing is kept.
    """
    with HeldBack() as messages:
        setup = build(run.config)
        if setup.start is None:
            raise MetagenError("an evaluation needs the weights of a run: name it, or checkpoint=FILE")
        steps = load_checkpoint(setup.experiment, setup.start)
        digest = hashlib.sha256(Path(setup.start).read_bytes()).hexdigest()
        for line in _test_rates(run.config["learner"]):
            echo(line)
        training = Training(steps, checkpoint=str(setup.start), sha256=digest)
        with run.opened(messages), told(run.folder) as progress:
            progress.tell(doing="tests")
            tester = setup.trainers.testing(run.folder, label(run.overrides))
            echo(f"evaluates on {in_words(tester.strategy.root_device)}")
            with _interruptible(tester, None):
                return _evaluate(run, setup, tester, training, echo)


def _test_rates(learner: Mapping[str, Any], path: str = "learner") -> Iterator[str]:
    """Yield a line for every rate of the test that is another one than that of meta-training."""
    if learner.get("test_rate") is not None:
        yield f"adapts at {path}.test_rate={learner['test_rate']}; {path}.rule.rate is that of meta-training"
    for key, node in learner.items():
        if isinstance(node, Mapping):
            yield from _test_rates(node, f"{path}.{key}")


@contextmanager
def _interruptible(trainer: L.Trainer, again: str | None) -> Iterator[None]:
    """Say where a job was stopped by a signal, and the command by which it goes on, if there is one."""
    try:
        yield
    except BaseException as error:
        if trainer.progress_bar_callback:
            sys.stderr.write("\n")  # the bar's line is not at its end
        stop = signals.behind(error)
        if stop is None:
            raise
        text = f"at step {trainer.global_step}: {again} goes on from there"
        text = text if again else "in the evaluation, of which nothing is kept: start it again"
        raise TrainingInterruptedError(text, stop.code) from None


def _evaluate(run: Run, setup: Setup, trainer: L.Trainer, training: Training, echo: Echo) -> float:
    evaluation = setup.experiment.evaluation = setup.evaluation(echo, trainer.strategy.root_device)
    trainer.test(setup.experiment, datamodule=setup.data, verbose=False)
    summary = evaluation.summary()
    write_record(run, setup, evaluation, training)
    means = {f"test/{name}": float(value["mean"]) for name, value in summary.items()}
    _to_loggers(trainer, run, evaluation, means, training.steps)
    for line in table_of(setup.metrics, summary, evaluation.judge, run.folder):
        echo(line)
    if evaluation.not_finite:
        log.warning(
            "the loss was NaN or infinite after adaptation in %s of %s test episodes: their figures mean "
            "nothing; lower learner.rule.rate or learner.test_rate, or set learner.clip=1",
            evaluation.not_finite, len(evaluation),
        )  # fmt: skip
    if evaluation.likelihood is not None:
        echo(likelihood_table(evaluation.likelihood.summary()))
    echo(f"run     {run.folder}\nsamples {run.folder / 'samples.png'}")
    return next(iter(means.values()), math.nan)


def _to_loggers(
    trainer: L.Trainer, run: Run, evaluation: Evaluation, means: Mapping[str, float], step: int
) -> None:
    """Log hyperparameters with the test metrics, the adaptation curves and the samples of the test."""
    picture = run.folder / "samples.png"
    for logger in trainer.loggers:
        log_test(logger, hyperparameters(run.config, run.choices), dict(means), step)
        log_curve(logger, evaluation.curve())
        if picture.is_file() and takes_images(logger):
            log_image(logger, "test/samples", Image.open(picture), step)
        logger.save()


def _fit(trainer: L.Trainer, setup: Setup, start: Path | None) -> None:
    """Train; what Lightning finds wrong with what it was given is the user's to read."""
    try:
        trainer.fit(setup.experiment, datamodule=setup.data, ckpt_path=start, weights_only=True)
    except MisconfigurationException as error:
        raise MetagenError(f"trainer: {' '.join(str(error).split())}") from error
    except (RuntimeError, AttributeError, ImportError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        if not any(part in Path(last).as_posix() for part in OF_CALLBACKS):
            raise
        raise MetagenError(
            f"callbacks: {' '.join(str(error).split())}; set it otherwise or leave it out"
        ) from error


def _rate(setup: Setup, batches: int, seconds: float) -> float | None:
    """Return the training episodes per second, validation included."""
    return batches * setup.data.task.batch / seconds if seconds and batches else None
