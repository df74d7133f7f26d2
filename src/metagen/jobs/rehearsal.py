"""One small step of a run on made-up images, before its data are loaded: does all of it go together?"""

from collections.abc import Mapping
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


def rehearse(experiment: Experiment, task: Mapping[str, Any], image: tuple[int, int, int]) -> None:
    """Take the gradient of the meta-loss of one task after one inner step, or its loss where none is taken.

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
    except MetagenError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"a first step on {' x '.join(map(str, image))} images fails ({reason}): model and learner take "
            f"others, or do not go together; see data.size, model.* and learner.*"
        ) from error


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
    if not torch.allclose(losses[0], losses[1], rtol=1e-4, equal_nan=True):
        raise UsageError(
            f"the loss of {type(model).__name__} differs for the same images: it draws noise that no seed of "
            "an episode fixes; draw it from shots.key (metagen.functional.rng), or leave it out"
        )
    for name, x in model.named_buffers():
        if name in before and not torch.equal(x, before[name]):
            raise UsageError(
                f"model.{name} changes whenever {type(model).__name__} computes a loss, and tasks would "
                "share it: leave out the layer that keeps it"
            )


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
