"""From a composed configuration to the objects of an experiment."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from metagen.config.schema import check
from metagen.config.trusted import instantiate
from metagen.core.metric import Metric
from metagen.data.datamodule import EpisodeData
from metagen.data.others import others
from metagen.errors import MetagenError
from metagen.evaluation.evaluation import Evaluation
from metagen.evaluation.likelihood import Likelihood
from metagen.training.checkpoints import read_checkpoint
from metagen.training.module import Experiment

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """What a configuration composes."""

    data: EpisodeData
    experiment: Experiment
    metrics: dict[str, Metric]
    likelihood: Likelihood | None = None


def build(cfg: DictConfig) -> Parts:
    """Check the configuration, load the data and build model and learner.

    Raises:
        MetagenError: something does not exist or does not fit; nothing has been written.
    """
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    check({str(key): value for key, value in plain.items()})
    _check_parts(cfg)
    data = load_data(cfg)
    experiment = build_experiment(cfg, len(data.streams.train.classes))
    metrics = _fitting(
        {name: instantiate(node, f"metrics.{name}") for name, node in cfg.metrics.items()}, experiment.model
    )
    likelihood = instantiate(cfg.likelihood, "likelihood") if cfg.get("likelihood") else None
    if likelihood is not None:
        likelihood.check(experiment.model, getattr(data.task, "test_shots", 0))
    return Parts(data, experiment, metrics, likelihood)


def _check_parts(cfg: DictConfig) -> None:
    """Refuse what does not fit together before the data are loaded, which may mean to download them."""
    trial = build_experiment(cfg, classes=max(1000, cfg.task.get("ways", 0)))
    try:
        trial.configure_optimizers()
    except (ValueError, TypeError, RuntimeError) as error:
        raise MetagenError(f"optimizer or scheduler: {' '.join(str(error).split())}") from error


def load_data(cfg: DictConfig) -> EpisodeData:
    """Return the DataModule with its banks loaded and its streams ready."""
    test_data = instantiate(cfg.test_data, "test_data") if cfg.get("test_data") else None
    data = EpisodeData(instantiate(cfg.data, "data"), instantiate(cfg.task, "task"), test_data, seed=cfg.seed)
    data.setup("fit")
    return data


def build_experiment(cfg: DictConfig, classes: int) -> Experiment:
    """Return model and learner in their LightningModule, initialised under the seed."""
    torch.manual_seed(cfg.seed)
    model, learner = instantiate(cfg.model, "model"), instantiate(cfg.learner, "learner")
    _check_fit(cfg, model, learner)
    return Experiment(
        model,
        learner,
        instantiate(cfg.optimizer, "optimizer"),
        instantiate(cfg.scheduler, "scheduler"),
        vectorize=cfg.vectorize,
        classes=classes,
        chunk=cfg.chunk,
        workers=cfg.workers,
        autocast=cfg.get("autocast", "auto"),
    )


def _check_fit(cfg: DictConfig, model: Any, learner: Any) -> None:
    """Refuse a model or a learner that cannot serve the task."""
    kind, few_shot = cfg.task.get("kind", "classify"), "shots" in cfg.task
    if model.kind != kind:
        fitting = {"generate": "vae", "classify": "conv4"}[kind]
        raise MetagenError(
            f"{type(model).__name__} cannot {kind}: use a model that does, such as model={fitting}, "
            f"or task={model.kind}"
        )
    if learner.few_shot != few_shot:
        fitting = "learner=maml" if few_shot else "learner=supervised"
        raise MetagenError(
            f"{type(learner).__name__} does not fit {'few-shot episodes' if few_shot else 'plain training'}: "
            f"use {fitting}"
        )


def _fitting(metrics: dict[str, Metric], model: Any) -> dict[str, Metric]:
    """Return the metrics that say something of ``model``; each of the others is logged.

    Raises:
        MetagenError: the first one, which sweeps and comparisons go by, says nothing.
    """
    unfit = {name: reason for name, metric in metrics.items() if (reason := metric.unfit(model))}
    if unfit and next(iter(metrics)) in unfit:
        name = next(iter(metrics))
        raise MetagenError(f"metric {name}: {unfit[name]}; leave it out with '~metrics.{name}'")
    for name, reason in unfit.items():
        log.warning("metric %s is left out: %s", name, reason)
    return {name: metric for name, metric in metrics.items() if name not in unfit}


def load_checkpoint(experiment: Experiment, path: str | Path) -> int:
    """Load the weights of a checkpoint and return the step at which it was written.

    Raises:
        MetagenError: the file is missing, unreadable, or belongs to another model or learner.
    """
    saved = read_checkpoint(path)
    try:
        experiment.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise MetagenError(f"{path} does not fit this model and learner: {reason}") from error
    return int(saved["global_step"])


def start_from(experiment: Experiment, path: str | Path) -> None:
    """Load the weights of a checkpoint as a start: the model's, and the learner's where it is the same.

    A table of the training classes, learned rates or a meta-network belong to the learner that was trained;
    another learner starts with its own initial ones, which is logged.

    Raises:
        MetagenError: the file is missing or unreadable, or the model is another one.
    """
    saved = read_checkpoint(path)["state_dict"]
    own = experiment.state_dict()
    fitting = {name: x for name, x in saved.items() if name in own and x.shape == own[name].shape}
    absent = [name for name in own if name.startswith("model.") and name not in fitting]
    if absent:
        raise MetagenError(f"{path} holds another model: {absent[0]} differs; use the model.* of its run")
    experiment.load_state_dict(fitting, strict=False)
    if left := sorted(own.keys() - fitting.keys()):
        log.info("%s says nothing of %s: they start anew", path, ", ".join(left))


def build_evaluation(cfg: DictConfig, parts: Parts) -> Evaluation:
    """Return the evaluation on the test stream, with a judge where a metric needs one."""
    bank, labels = parts.data.test_bank, parts.data.streams.test.class_ids
    tested = {bank.names[int(label)] for label in labels}
    judge = None
    if any(metric.needs_judge for metric in parts.metrics.values()):
        judge = instantiate(cfg.judge, "judge")
        judge.fit(bank, tested)
    steps = parts.experiment.learner.test_steps
    rest = None
    if any(metric.needs_others for metric in parts.metrics.values()):
        rest = others(bank, tested)
    return Evaluation(parts.metrics, labels, judge, cfg.samples, steps, parts.likelihood, rest)
