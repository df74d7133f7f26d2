"""The jobs behind ``metagen train`` and ``metagen evaluate``."""

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from metagen.build import Parts, build, build_evaluation, load_checkpoint
from metagen.checkpoints import AtomicCheckpoints
from metagen.errors import TrainingInterruptedError
from metagen.evaluation import Evaluation
from metagen.record import flatten, write_record
from metagen.report.table import likelihood_table, metrics_table

log = logging.getLogger(__name__)


class _SaveOnInterrupt(Callback):
    """Keep the state that Ctrl-C or an error finds as ``last.ckpt``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step:
            trainer.save_checkpoint(self.path, weights_only=False)


def train(cfg: DictConfig, echo: Callable[[str], Any]) -> float:
    """Meta-train, keep the best and the last checkpoint, and evaluate on the test episodes.

    Args:
        cfg: the composed configuration.
        echo: takes the lines that the user is to see.

    Returns:
        The mean of the task's first metric, for a sweeper.

    Raises:
        MetagenError: bad input; nothing was written.
        TrainingInterruptedError: Ctrl-C; ``checkpoints/last.ckpt`` is written.
    """
    parts, folder = build(cfg), run_folder()
    if cfg.checkpoint:
        load_checkpoint(parts.experiment, cfg.checkpoint)
    validated = parts.data.streams.val is not None
    trainer, best = _trainer(cfg, folder, validated), folder / "checkpoints" / "best.ckpt"
    start = time.perf_counter()
    if parts.experiment.learner.meta_trained:
        with _interruptible(trainer, folder):
            trainer.fit(parts.experiment, datamodule=parts.data)
    else:
        trainer.strategy.connect(parts.experiment)
    # Training may end between two validations, or before the first one.
    trainer.save_checkpoint(best.with_name("last.ckpt"))
    if not best.exists():
        trainer.save_checkpoint(best)
    load_checkpoint(parts.experiment, best)
    training = {"steps": trainer.global_step, "seconds": time.perf_counter() - start}
    return _evaluate(cfg, trainer, parts, folder, training, echo)


def evaluate(cfg: DictConfig, echo: Callable[[str], Any]) -> float:
    """Evaluate the checkpoint ``cfg.checkpoint`` on the test episodes, in a folder of its own."""
    parts, folder = build(cfg), run_folder()
    steps = load_checkpoint(parts.experiment, cfg.checkpoint)
    digest = hashlib.sha256(Path(cfg.checkpoint).read_bytes()).hexdigest()
    training = {"steps": steps, "seconds": None, "checkpoint": str(cfg.checkpoint), "sha256": digest}
    return _evaluate(cfg, _trainer(cfg, folder), parts, folder, training, echo)


def run_folder() -> Path:
    """Return the folder that Hydra made for this run."""
    return Path(HydraConfig.get().runtime.output_dir)


def _trainer(cfg: DictConfig, folder: Path, validated: bool = False) -> L.Trainer:
    """Return Lightning's trainer; without validation the best checkpoint is the last one."""
    checkpoints = ModelCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor="val/loss" if validated else None,
        save_last=True,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
    # A log file has no use for a line at every step.
    bar = [TQDMProgressBar(5 if sys.stderr.isatty() else 100)] if cfg.trainer.enable_progress_bar else []
    return instantiate(
        cfg.trainer,
        default_root_dir=str(folder),
        callbacks=[checkpoints, *bar, _SaveOnInterrupt(folder / "checkpoints" / "last.ckpt")],
        plugins=[AtomicCheckpoints()],
        logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
    )


@contextmanager
def _interruptible(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """Turn an interrupt of Lightning's loop into an error of ours: Lightning itself exits with code 1."""
    try:
        yield
    except BaseException as error:
        if trainer.progress_bar_callback:
            sys.stderr.write("\n")  # the bar's line is not at its end
        if not (isinstance(error, SystemExit) and trainer.interrupted):
            raise
    if trainer.interrupted:
        raise TrainingInterruptedError(trainer.global_step, folder)


def _evaluate(
    cfg: DictConfig,
    trainer: L.Trainer,
    parts: Parts,
    folder: Path,
    training: dict[str, Any],
    echo: Callable[[str], Any],
) -> float:
    evaluation = parts.experiment.evaluation = build_evaluation(cfg, parts)
    with _interruptible(trainer, folder):
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
    trainer.logger.log_hyperparams(flatten(OmegaConf.to_container(cfg, resolve=True)), means)
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
