"""One small step of a run on made-up images, before its data are loaded: does all of it go together?"""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metagen.core.episode import Episode, Shots
from metagen.errors import MetagenError, UsageError
from metagen.functional import rng
from metagen.functional.vectorize import Vectorizer, loop, quickest, vmap
from metagen.training.module import Experiment

WAYS = 2
"""Classes of a generator, which takes any number; an image of each to learn from, one to be judged by."""
MARGIN = 1e-3
"""Of rounding, by which a pixel may lie outside [0, 1]."""


def rehearse(experiment: Experiment, task: Mapping[str, Any], image: tuple[int, int, int]) -> None:
    """Take the gradient of the meta-loss of one task after one inner step, or its loss where none is taken.

    A generator also draws.

    Args:
        experiment: to try it out; it is not to be trained afterwards.
        task: its configuration.
        image: (C, H, W) of the data.

    Raises:
        UsageError: a part does not take what another one gives.
    """
    episode = _episode(task, image)
    experiment.learner.steps = min(experiment.learner.steps, 1)
    if experiment.over is quickest and max(task.get("batch", 1), task.get("eval_batch", 1)) > 1:
        experiment.over = vmap  # as with several tasks, of which there is one here
    try:
        with torch.random.fork_rng(devices=[]):
            _check_pure(experiment, episode)
            _check_alone(experiment, episode)
            if experiment.learner.meta_trained:
                _gradient(experiment, episode)
            else:
                _adaptation(experiment, episode, experiment.over, min(experiment.learner.test_steps, 1))
            if experiment.objective.model.kind == "generate" and not experiment.objective.model.pixelwise:
                _check_samples(experiment, episode, image)
    except MetagenError:
        raise
    except Exception as error:
        raise UsageError(
            f"a first step on {' x '.join(map(str, image))} images fails ({reason(error)}): model and "
            f"learner take others, or do not go together; see data.size, model.* and learner.*"
        ) from error


def reason(error: Exception) -> str:
    """Return what went wrong, and where in a learner, a model or the user's own code."""
    text = " ".join(str(error).split())[:200]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _known(frame.filename)]
    missing = isinstance(error, NotImplementedError)
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = f"there is no {last.name}" if missing and not text else text or type(error).__name__
    if not own:
        return said
    name = "" if missing else f"{type(error).__name__}: "
    return f"{name}{said}, in {Path(own[-1].filename).name}, line {own[-1].lineno}, {own[-1].name}"


def _known(file: str) -> bool:
    """Return whether code is a library's, or metagen's that calls learners and models."""
    ours = Path(__file__).parents[1]
    calls = [str(ours / name) for name in ("core", "functional", "jobs", "training")]
    return file.startswith(("<", *calls)) or "site-packages" in file


def _check_pure(experiment: Experiment, episode: Episode) -> None:
    """Refuse a model whose loss differs for the same images, or that is another one afterwards.

    Layers that do so are mostly known by their class (:func:`metagen.jobs.build.check_layers`); this finds
    what a model's own code does.
    """
    model = experiment.model
    before = {name: x.clone() for name, x in model.named_buffers()}
    losses = []
    for seed in range(2):
        torch.manual_seed(seed)
        losses.append(_adaptation(experiment, episode, loop, 0))
    for name, x in model.named_buffers():
        if name in before and not torch.equal(x, before[name]):
            raise UsageError(
                f"model.{name} changes whenever {type(model).__name__} computes a loss, and tasks would "
                "share it: leave out the layer that keeps it"
            )
    name = type(model).__name__
    if losses[0].ndim != 1:
        raise UsageError(
            f"the loss of {name} has the shape {tuple(losses[0].shape[1:])}: return a scalar, the mean over "
            "images"
        )
    if not torch.allclose(losses[0], losses[1], rtol=1e-4, equal_nan=True):
        raise UsageError(
            f"the loss of {name} differs for the same images: it draws noise that no seed of "
            "an episode fixes; draw it from shots.key (metagen.functional.rng), or leave it out"
        )
    if not losses[0].isfinite().all():
        raise UsageError(
            f"the loss of {name} is {losses[0].item()} for images of noise, before any training: "
            "let it be finite for pixels in [0, 1]"
        )


def _check_samples(experiment: Experiment, episode: Episode, image: tuple[int, int, int]) -> None:
    """Refuse a generator whose images are none, or are others for the same key."""
    learner, objective = experiment.learner, experiment.objective
    params, ways = objective.params(), episode.support.x.shape[1]

    def drawn(one: Episode) -> Tensor:
        adapted = learner.adapt(objective, params, one.support, 0)
        found: Tensor = objective.call("sample", adapted, torch.arange(ways), one.query.key)
        return found

    images = []
    for seed in range(2):
        torch.manual_seed(seed)
        with torch.no_grad():
            images.append(loop(drawn)(episode)[0])
    x, name = images[0], f"{type(experiment.model).__name__}.sample"
    if x.shape != (ways, *image):
        raise UsageError(
            f"{name} drew {tuple(x.shape)} for {ways} classes: return images {(ways, *image)}, one for each"
        )
    if not x.isfinite().all() or x.min() < -MARGIN or x.max() > 1 + MARGIN:
        raise UsageError(
            f"{name} drew pixels from {x.min().item():.4g} to {x.max().item():.4g}: return them in [0, 1]"
        )
    if not torch.equal(*images):
        raise UsageError(
            f"{name} drew others for the same key: draw its noise from key (metagen.functional.rng)"
        )
    if experiment.over is vmap:
        with torch.no_grad():
            vmap(drawn)(episode)


def _check_alone(experiment: Experiment, episode: Episode) -> None:
    """Refuse a classifier that looks at images together without saying so."""
    model, objective = experiment.model, experiment.objective
    if objective.model.kind != "classify" or objective.model.batch_statistics:
        return
    x = episode.query.x[0].flatten(0, 1)
    with torch.no_grad():
        together, alone = (objective.call("logits", objective.params(), part)[:1] for part in (x, x[:1]))
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise UsageError(
            f"what {type(model).__name__} says of an image depends on those beside it: normalise each image "
            "by itself (such as GroupNorm), or use metagen.models.layers.BatchStatNorm and set "
            "batch_statistics = True in the class"
        )


def _adaptation(experiment: Experiment, episode: Episode, over: Vectorizer, steps: int) -> Tensor:
    """Return the query loss of each task after so many steps."""
    learner, objective = experiment.learner, experiment.objective
    params = objective.params()

    def loss(one: Episode) -> Tensor:
        return objective.query_loss(learner.adapt(objective, params, one.support, steps), one)

    with torch.no_grad():
        found: Tensor = over(loss)(episode)
    return found


def _gradient(experiment: Experiment, episode: Episode) -> None:
    loss = experiment.meta_loss(episode)
    leaves = [p for p in experiment.parameters() if p.requires_grad]
    if loss.requires_grad and leaves:
        torch.autograd.grad(loss, leaves, allow_unused=True)


def _episode(task: Mapping[str, Any], image: tuple[int, int, int]) -> Episode:
    """Return one task with as few images as can be."""
    few_shot = "shots" in task
    ways = min(task["ways"], WAYS) if task.get("kind") == "generate" else task["ways"] if few_shot else 1
    shots, queries = (1, 1) if few_shot else (0, 2)
    x = rng.uniform(rng.key(0), (1, ways, shots + queries, *image))
    y = torch.arange(ways)[None, :, None].expand(1, ways, shots + queries)
    keys = rng.fold_in(rng.key(1), torch.arange(2))
    support = Shots(x[:, :, :shots], y[:, :, :shots], keys[:1])
    query = Shots(x[:, :, shots:], y[:, :, shots:], keys[1:])
    return Episode(support, query, torch.arange(ways)[None])
