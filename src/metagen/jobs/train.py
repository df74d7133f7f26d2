"""The jobs behind ``metagen train`` and ``metagen evaluate``."""

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from metagen.config.flat import hyperparameters
from metagen.config.trusted import instantiate
from metagen.errors import TrainingInterruptedError
from metagen.evaluation.evaluation import Evaluation
from metagen.functional import autocast
from metagen.jobs import ddp
from metagen.jobs.build import Parts, build, build_evaluation, load_checkpoint, start_from
from metagen.jobs.record import write_record
from metagen.jobs.resume import held, resumes
from metagen.report.tables import likelihood_table, metrics_table
from metagen.training import parallel, signals
from metagen.training.checkpoints import BEST, LAST, AtomicCheckpoints, Keeper, newest
from metagen.training.pruning import pruning
from metagen.training.skip_bad_steps import SkipBadSteps, advice
from metagen.variables import RANKS

log = logging.getLogger(__name__)


def train(cfg: DictConfig, echo: Callable[[str], Any]) -> float:
    """Meta-train, keep the best and the last checkpoint, and evaluate on the test episodes.

    A resumed job goes on from the newest checkpoint in its folder.

    Args:
        cfg: the composed configuration.
        echo: takes the lines that the user is to see.

    Returns:
        The mean of the task's first metric, for a sweeper.

    Raises:
        MetagenError: bad input, and nothing was written; or a step that fails time and again.
        TrainingInterruptedError: a signal; ``checkpoints/last.ckpt`` is written.
    """
    parallel.check(cfg)
    _check_device(cfg)
    one_of_several = RANKS in os.environ or parallel.started_elsewhere()
    with nullcontext() if one_of_several else held(run_folder()):
        return _train(cfg, run_folder(), echo)


def _train(cfg: DictConfig, folder: Path, echo: Callable[[str], Any]) -> float:
    parts, checkpoints = build(cfg), folder / "checkpoints"
    keeper, skips = Keeper(checkpoints, cfg.checkpoint_every), _skips(cfg)
    start, steps = newest(checkpoints) if resumes() else (None, None)
    if start is not None:
        # Every step depends on its number alone.
        keeper.saved_step = parts.data.first_step = load_checkpoint(parts.experiment, start)
        echo(f"goes on from step {steps} ({start})")
    elif cfg.checkpoint:
        start_from(parts.experiment, cfg.checkpoint)
        if not parts.experiment.learner.meta_trained:
            echo(f"starts as {cfg.checkpoint}: this is fine-tuning, not training from scratch")
    validated, meta_trained = parts.data.streams.val is not None, parts.experiment.learner.meta_trained
    with ddp.together(cfg) if meta_trained else nullcontext():
        trainer = _trainer(cfg, folder, [keeper, skips, *pruning()], steps)
        if meta_trained:
            with _interruptible(trainer, folder), signals.deferred():
                trainer.fit(parts.experiment, datamodule=parts.data, ckpt_path=start, weights_only=True)
        else:
            trainer.strategy.connect(parts.experiment)
    if not trainer.is_global_zero:
        return ddp.retire(folder)
    # Training may end between two validations, or before the first one.
    if keeper.saved_step != trainer.global_step:
        keeper.keep(trainer, LAST)
    if not validated or keeper.best_model_score is None:
        keeper.keep(trainer, BEST)
    load_checkpoint(parts.experiment, checkpoints / BEST)
    training = {"steps": trainer.global_step, "seconds": keeper.seconds, "ranks": trainer.world_size}
    training |= {"skipped": skips.total, "resumed": keeper.resumed}
    tester = trainer if trainer.world_size == 1 else _trainer(parallel.alone(cfg), folder)
    return _evaluate(cfg, tester, parts, folder, training, echo)


def evaluate(cfg: DictConfig, echo: Callable[[str], Any]) -> float:
    """Evaluate the checkpoint ``cfg.checkpoint`` on the test episodes, in a folder of its own."""
    parallel.check_accelerator(cfg.trainer)
    parts, folder = build(cfg), run_folder()
    steps = load_checkpoint(parts.experiment, cfg.checkpoint)
    digest = hashlib.sha256(Path(cfg.checkpoint).read_bytes()).hexdigest()
    for key, part in (("learner", cfg.learner), ("learner.second", cfg.learner.get("second") or {})):
        if (rate := part.get("test_rate")) is not None:
            echo(f"adapts at {key}.test_rate={rate}; {key}.rule.rate is that of meta-training")
    training = {"steps": steps, "seconds": None, "checkpoint": str(cfg.checkpoint), "sha256": digest}
    return _evaluate(cfg, _trainer(parallel.alone(cfg), folder), parts, folder, training, echo)


def _check_device(cfg: DictConfig) -> None:
    """Refuse a device that is not here, and a precision that the device or the optimizer does not stand."""
    parallel.check_accelerator(cfg.trainer)
    clipped, fused = bool(cfg.trainer.get("gradient_clip_val")), bool(cfg.optimizer.get("fused"))
    autocast.check(cfg.trainer.precision, parallel.on_cpu(cfg.trainer), clipped, fused, cfg.chunk)


def run_folder() -> Path:
    """Return the folder that Hydra made for this run."""
    return Path(HydraConfig.get().runtime.output_dir)


def _skips(cfg: DictConfig) -> SkipBadSteps:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    learner = HydraConfig.get().runtime.choices.get("learner", cfg.learner._target_)
    return SkipBadSteps(cfg.max_skips, learner, advice({str(key): node for key, node in plain.items()}))


def _trainer(
    cfg: DictConfig, folder: Path, callbacks: Sequence[Callback] = (), resumed: int | None = None
) -> L.Trainer:
    """Return Lightning's trainer; what was logged from step ``resumed`` on will be logged again."""
    again: dict[str, Any] = {} if resumed is None else {"purge_step": resumed}
    # A log file has no use for a line at every step.
    bar = [TQDMProgressBar(5 if sys.stderr.isatty() else 100)] if cfg.trainer.enable_progress_bar else []
    made: L.Trainer = instantiate(
        cfg.trainer,
        "trainer",
        default_root_dir=str(folder),
        enable_checkpointing=bool(callbacks),
        callbacks=[*callbacks, *bar],
        plugins=[AtomicCheckpoints()],
        logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False, **again),
    )
    return made


@contextmanager
def _interruptible(trainer: L.Trainer, folder: Path, training: bool = True) -> Iterator[None]:
    """Say where a job was stopped by a signal, and how it goes on."""
    try:
        yield
    except BaseException as error:
        if trainer.progress_bar_callback:
            sys.stderr.write("\n")  # the bar's line is not at its end
        if not isinstance(error, signals.Stopped):
            raise
        text = f"at step {trainer.global_step}: metagen train --resume {folder} goes on from there"
        text = text if training else "in the evaluation, of which nothing is kept: start it again"
        raise TrainingInterruptedError(text, error.code) from None


def _evaluate(
    cfg: DictConfig,
    trainer: L.Trainer,
    parts: Parts,
    folder: Path,
    training: dict[str, Any],
    echo: Callable[[str], Any],
) -> float:
    evaluation = parts.experiment.evaluation = build_evaluation(cfg, parts)
    with _interruptible(trainer, folder, "checkpoint" not in training):
        trainer.test(parts.experiment, datamodule=parts.data, verbose=False)
    training["episodes_per_second"] = _rate(cfg, training)
    summary = evaluation.summary()
    write_record(cfg, parts, evaluation, training, folder)
    means = {f"test/{name}": float(value["mean"]) for name, value in summary.items()}
    _to_tensorboard(trainer, cfg, evaluation, means, folder)
    echo(metrics_table(summary, {name: metric.unit for name, metric in parts.metrics.items()}))
    if evaluation.likelihood is not None:
        echo(likelihood_table(evaluation.likelihood.summary()))
    echo(f"run     {folder}\nsamples {folder / 'samples.png'}")
    return next(iter(means.values()))


def _to_tensorboard(
    trainer: L.Trainer, cfg: DictConfig, evaluation: Evaluation, means: dict[str, float], folder: Path
) -> None:
    """Log hyperparameters with the test metrics, the adaptation curves and the samples."""
    assert isinstance(trainer.logger, TensorBoardLogger)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    trainer.logger.log_hyperparams(hyperparameters(plain, HydraConfig.get().runtime.choices), means)
    writer = trainer.logger.experiment
    for point in evaluation.curve():
        for name, value in point["metrics"].items():
            writer.add_scalar(f"adaptation/{name}", value["mean"], point["step"])
    if (folder / "samples.png").is_file():
        writer.add_image("samples", np.asarray(Image.open(folder / "samples.png")), dataformats="HWC")
    trainer.logger.save()


def _rate(cfg: DictConfig, training: dict[str, Any]) -> float | None:
    """Return the training episodes per second, validation included."""
    if not training["seconds"] or not training["steps"]:
        return None
    return training["steps"] * cfg.task.batch / training["seconds"]
