"""The objects of an experiment, built from a composed configuration."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from metagen.config.compose import Config, plain
from metagen.config.schema import check
from metagen.config.trusted import instantiate, resolve
from metagen.core.metric import Metric
from metagen.data.datamodule import EpisodeData
from metagen.errors import MetagenError, UsageError
from metagen.evaluation.generative_classifier import IMPORTANCE_SAMPLES, no_likelihood
from metagen.evaluation.likelihood import Likelihood
from metagen.jobs import memory
from metagen.jobs.rehearsal import rehearse
from metagen.jobs.rehearsal_of_test import check_metrics
from metagen.jobs.setup import Setup
from metagen.learners.adapts import matching
from metagen.runs.reopen import checkpoint_file
from metagen.training.checkpoints import read_checkpoint
from metagen.training.module import Experiment
from metagen.training.skip_bad_steps import advice
from metagen.training.trainers import Trainers

log = logging.getLogger(__name__)


def build(cfg: Mapping[str, Any]) -> Setup:
    """Check the configuration, load the data and build everything else.

    Args:
        cfg: Hydra's, or plain resolved values.

    Raises:
        MetagenError: something does not exist or does not fit; nothing has been written.
    """
    config = plain(cfg)
    check(config)
    trainers, metrics, likelihood, judge = parts(config)
    start = None if config["checkpoint"] is None else str(checkpoint_file(config["checkpoint"]))
    data = load_data(config)
    data.overfit = trainers.overfit
    if data.streams.val is None:
        trainers.check_validated()
    experiment = build_experiment(config, len(data.streams.train.classes))
    setup = Setup(
        data, experiment, metrics, likelihood, judge, config["samples"], trainers, start,
        config["checkpoint_every"], config["max_skips"], advice(config),
        config.get("curves", "all"),  # so it was before there was a choice
        config.get("importance_samples", IMPORTANCE_SAMPLES),
    )  # fmt: skip
    setup.check()
    return setup


def parts(config: Config) -> tuple[Trainers, dict[str, Metric], Likelihood | None, Any]:
    """Return all that can be built without data: trainers, metrics, a likelihood, and an untrained judge.

    Raises:
        UsageError: it cannot be built, or does not fit together.
    """
    try:
        return _parts(config)
    except UsageError:
        raise
    except MetagenError as error:
        raise UsageError(str(error)) from error


def _parts(config: Config) -> tuple[Trainers, dict[str, Metric], Likelihood | None, Any]:
    trainers = Trainers(config["trainer"], config.get("logger"), config.get("callbacks"))
    trainers.check(config["task"], config["optimizer"], config["chunk"])
    judge = _made(config["judge"], "judge", "fit")
    metrics = {
        name: _made(node, f"metrics.{name}", "needs_judge") for name, node in config["metrics"].items()
    }
    likelihood = None
    if config.get("likelihood"):
        likelihood = _made(config["likelihood"], "likelihood", "importance_samples")
    trial = _check_parts(config)
    metrics = _fitting(metrics, trial.model)
    check_metrics(metrics, judge, config["task"], config["samples"])
    if likelihood is not None:
        task = config["task"]
        likelihood.check(trial.model, task.get("test_shots") or task.get("shots", 0))
    needed = any(metric.needs_judge for metric in metrics.values())
    return trainers, metrics, likelihood, judge if needed else None


def _check_parts(config: Config) -> Experiment:
    """Refuse what does not fit together before the data are loaded, which may mean to download them."""
    classes = max(1000, config["task"].get("ways", 0))
    memory.check_batches(config)
    memory.check_weights(lambda: build_experiment(config, classes))
    trial = build_experiment(config, classes)
    check_layers(trial.model)
    channels, taken = _channels(config["data"]), trial.objective.model.colours
    if taken is not None and channels != taken:
        raise UsageError(
            f"data.channels={channels}, but {type(trial.model).__name__} takes images of {taken}: set "
            f"data.channels={taken}, or a model of {channels} channels"
        )
    try:
        trial.configure_optimizers()
    except MetagenError:
        raise
    except Exception as error:
        raise UsageError(f"optimizer or scheduler: {' '.join(str(error).split())}") from error
    size = config["data"].get("size")
    if isinstance(size, int):
        rehearse(trial, config["task"], (channels, size, size))
    return trial


_NOISE = "draws noise that no seed of an episode fixes"
_RANDOM = (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
_AVERAGES = "keeps running averages, which tasks would share"
LAYERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any], str], ...] = (
    (_DropoutNd, lambda layer: layer.p > 0, f"{_NOISE}: leave it out"),
    (_RANDOM, lambda layer: True, f"{_NOISE}: leave it out"),
    ((nn.MultiheadAttention, nn.RNNBase), lambda layer: layer.dropout > 0, f"{_NOISE}: set its dropout=0"),
    (_BatchNorm, lambda layer: True, f"{_AVERAGES}: use metagen.models.layers.BatchStatNorm"),
    (_InstanceNorm, lambda layer: layer.track_running_stats, f"{_AVERAGES}: leave track_running_stats out"),
)
"""Layers of torch that adaptation cannot use, with which settings, and why."""


def check_layers(model: nn.Module) -> None:
    """Refuse layers whose noise or running averages adaptation cannot keep apart.

    Norms of one image (layer, group, instance and RMS norm) are not among them. What a model's own code does
    is found by :func:`metagen.jobs.rehearsal.rehearse`.

    Raises:
        MetagenError: the model has one.
    """
    for name, layer in model.named_modules():
        for kind, bad, why in LAYERS:
            if isinstance(layer, kind) and bad(layer):
                raise MetagenError(f"model.{name}: {type(layer).__name__} {why}")


def _channels(node: Mapping[str, Any]) -> Any:
    """Return how many channels the images of a data set will have, before they are loaded."""
    found = node.get("channels")
    return found or getattr(resolve(node["_target_"], "data"), "default_channels", 1)


def load_data(cfg: Mapping[str, Any]) -> EpisodeData:
    """Return the DataModule with its banks loaded and its streams ready."""
    config = plain(cfg)
    test_data = _made(config["test_data"], "test_data", "load") if config.get("test_data") else None
    task = _made(config["task"], "task", "streams")
    data = EpisodeData(_made(config["data"], "data", "load"), task, test_data, seed=config["seed"])
    data.setup("fit")
    return data


def build_experiment(cfg: Mapping[str, Any], classes: int) -> Experiment:
    """Return model and learner in their LightningModule, initialised under the seed."""
    config = plain(cfg)
    torch.manual_seed(config["seed"])
    model, learner = (
        _made(config["model"], "model", "parameters"),
        _made(config["learner"], "learner", "adapt"),
    )
    _check_fit(config["task"], model, learner)
    return Experiment(
        model,
        learner,
        instantiate(config["optimizer"], "optimizer"),
        instantiate(config["scheduler"], "scheduler"),
        vectorize=config["vectorize"],
        classes=classes,
        chunk=config["chunk"],
        workers=config["workers"],
        autocast=config.get("autocast", "auto"),
    )


def _made(node: Mapping[str, Any], where: str, by: str) -> Any:
    """Return the object of a node, which is known as one of its kind by an attribute.

    Raises:
        UsageError: it is of another kind.
    """
    made = instantiate(node, where)
    if not hasattr(made, by):
        raise UsageError(
            f"{where}._target_={node['_target_']}: a {type(made).__name__} is none, it has no '{by}'; "
            f"see the choices of the group in metagen train --help"
        )
    return made


def _check_fit(task: Mapping[str, Any], model: Any, learner: Any) -> None:
    """Refuse a model or a learner that cannot serve the task."""
    kind, few_shot = task.get("kind", "classify"), "shots" in task
    if model.kind != kind:
        fitting = {"generate": "vae", "classify": "conv4"}[kind]
        raise MetagenError(
            f"{type(model).__name__} cannot {kind}: use a model that does, such as model={fitting}, "
            f"or task={model.kind}"
        )
    if learner.few_shot != few_shot:
        fitting = "learner=maml" if few_shot else "learner=supervised"
        raise MetagenError(
            f"{learner.describe()} does not fit {'few-shot episodes' if few_shot else 'plain training'}: "
            f"use {fitting}"
        )


def _fitting(metrics: dict[str, Metric], model: Any) -> dict[str, Metric]:
    """Return the metrics that say something of ``model``; each of the others is logged.

    Raises:
        MetagenError: the first one, which sweeps and comparisons go by, says nothing.
    """
    for name, metric in metrics.items():
        _check_needs(name, metric, model)
    unfit = {name: reason for name, metric in metrics.items() if (reason := metric.unfit(model))}
    if unfit and next(iter(metrics)) in unfit:
        name = next(iter(metrics))
        raise MetagenError(f"metric {name}: {unfit[name]}; leave it out of metric=[...]")
    for name, reason in unfit.items():
        log.warning("metric %s is left out: %s", name, reason)
    return {name: metric for name, metric in metrics.items() if name not in unfit}


def _check_needs(name: str, metric: Metric, model: Any) -> None:
    """Refuse a metric of samples or logits that ``model`` does not give.

    Raises:
        UsageError: it gives none.
    """
    for needed, kinds in (("samples", ("generate",)), ("logits", ("classify", "generate"))):
        if getattr(metric, f"needs_{needed}") and model.kind not in kinds:
            raise UsageError(
                f"metric {name} needs {needed}, which a task={model.kind} does not give: leave it out of "
                f"metric=[...]"
            )
    if metric.needs_logits and model.kind == "generate" and (reason := no_likelihood(model)):
        raise UsageError(f"metric {name} needs logits, but {reason}; or leave it out of metric=[...]")


def load_checkpoint(experiment: Experiment, path: str | Path) -> int:
    """Load the weights of a checkpoint and return the step at which it was written.

    One that was exported has nothing of what only training needs.

    Raises:
        MetagenError: the file is missing, unreadable, or belongs to another model or learner.
    """
    saved = read_checkpoint(path)
    state = _of_model(experiment, experiment.objective.model.training_only) | saved["state_dict"]
    try:
        experiment.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise MetagenError(f"{path} does not fit this model and learner: {reason}") from error
    return int(saved["global_step"])


def _of_model(experiment: Experiment, patterns: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return what a model holds under names that fit one of the glob patterns."""
    own = experiment.model.state_dict()
    return {f"model.{name}": own[name] for name in matching(own, patterns)}


def start_from(experiment: Experiment, path: str | Path) -> None:
    """Load the weights of a checkpoint as a start: the model's, and the learner's where it is the same.

    A table of the training classes, learned rates or a meta-network belong to the learner that was trained;
    another learner starts with its own initial ones, which is logged. So does what the model learns ``later``
    or needs for its training only.

    Raises:
        MetagenError: the file is missing or unreadable, or the model is another one.
    """
    saved = read_checkpoint(path)["state_dict"]
    own = experiment.state_dict()
    fitting = {name: x for name, x in saved.items() if name in own and x.shape == own[name].shape}
    model = experiment.objective.model
    may_lack = _of_model(experiment, (*model.later, *model.training_only))
    lacking = may_lack.keys() - saved.keys()
    absent = [name for name in own if name.startswith("model.") and name not in fitting.keys() | lacking]
    if absent:
        raise MetagenError(f"{path} holds another model: {absent[0]} differs; use the model.* of its run")
    experiment.load_state_dict(fitting, strict=False)
    if left := sorted(own.keys() - fitting.keys()):
        log.info("%s says nothing of %s: they start anew", path, ", ".join(left))
