"""Adapt to test episodes and measure, step by step."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params, Shots
from metagen.core.metric import Metric, Outcome, PooledMetric
from metagen.core.objective import Objective
from metagen.evaluation.generative_classifier import IMPORTANCE_SAMPLES, class_logits
from metagen.evaluation.likelihood import Likelihood
from metagen.functional import rng
from metagen.functional.flops import adaptation_flops
from metagen.functional.vectorize import Vectorizer
from metagen.statistics import summarize

Curves = Literal["last", "cheap", "all"]
AT_ONCE = 10_240
"""Images of an episode that are drawn at a time: 20 classes of 512."""
BUDGETS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def budgets(steps: int) -> list[int]:
    """Return the numbers of steps at which an adaptation of ``steps`` steps is measured."""
    return sorted({b for b in BUDGETS if b < steps} | {steps})


class Shown(NamedTuple):
    """The first test episode, for the pictures: images float (N, ., C, H, W), class ids (N,)."""

    support: Tensor
    query: Tensor
    y: Tensor
    samples: Tensor | None
    logits: Tensor | None
    labels: Tensor


class Evaluation:
    """The metrics of every test episode after 0, 1, 2, 5, 10, ... adaptation steps.

    Those that are costly, or look at all episodes at once, are measured after the last step only.

    Args:
        metrics: by name.
        labels: (P,) class id in the dataset for each index in ``Episode.classes``.
        judge: classifier of the real data, or ``None``.
        samples: generated images a class (M).
        steps: the largest number of adaptation steps.
        others: real images of the classes that are not tested, to learn from and to test on.
        likelihood: what else is measured, over the number of context images.
        curves: what is measured after fewer steps, too: all metrics, the cheap ones, or (``last``) none.
        importance_samples: of the images that a generator classifies, where its likelihood is a bound.

    Attributes:
        values: step -> metric measured there -> its value in every episode.
        not_finite: in how many episodes the loss was NaN or infinite after the last step.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        labels: Tensor,
        judge: Callable[[Tensor], Tensor] | None = None,
        samples: int = 64,
        steps: int = 0,
        likelihood: Likelihood | None = None,
        others: tuple[Tensor, Tensor] | None = None,
        curves: Curves = "cheap",
        importance_samples: int = IMPORTANCE_SAMPLES,
    ) -> None:
        self.metrics, self.labels, self.judge = dict(metrics), labels, judge
        self.samples, self.steps, self.likelihood = samples, steps, likelihood
        self.others, self.importance_samples = others, importance_samples
        self.values: dict[int, dict[str, list[float]]] = {
            step: {name: [] for name, one in metrics.items() if step == steps or not _at_the_end(one, curves)}
            for step in ([steps] if curves == "last" else budgets(steps))
        }
        self._seconds = dict.fromkeys(self.values, 0.0)
        self._flops: tuple[int, int] | None = None
        self._episodes = self.not_finite = 0
        self.shown: Shown | None = None
        self._kept: dict[str, list[Any]] = {}

    def update(self, objective: Objective, learner: Any, batch: Episode, over: Vectorizer) -> None:
        """Adapt to the T episodes of ``batch`` and measure along the way."""
        params = objective.params()
        if not self._episodes:
            self._flops = adaptation_flops(learner, objective, params, _take(batch.support, 0))
        clock, spent = time.perf_counter(), 0.0
        path = learner.path(objective, params, batch.support, list(self.values), over=over)
        for step in self.values:
            state = next(path)
            spent += time.perf_counter() - clock
            self._seconds[step] += spent
            self._measure(step, objective, params, state.params, batch, over)
            del state  # or it would be kept while the path goes on
            clock = time.perf_counter()
        self._episodes += batch.classes.shape[0]
        if self.likelihood is not None:
            self.likelihood.update(objective, learner, batch, over)

    def _measure(
        self, step: int, objective: Objective, theta: Params, phi: Params, batch: Episode, over: Vectorizer
    ) -> None:
        """Measure all metrics with ``phi`` (a leading T) in place of what it replaces in ``theta``."""

        def call(method: str, *args: Any) -> Tensor:
            return over(lambda p, *rest: objective.call(method, {**theta, **p}, *rest))(phi, *args)

        losses = over(lambda p, episode: objective.query_loss({**theta, **p}, episode))(phi, batch)
        if step == self.steps:
            self.not_finite += int((~losses.isfinite()).sum())
        samples = self._sample(call, batch) if objective.model.kind == "generate" else None
        logits = inductive = transductive = None
        if objective.model.kind == "classify":
            inductive, transductive = _logits(call, objective, batch)
            logits = transductive if objective.model.transductive else inductive
        elif any(self.metrics[name].needs_logits for name in self.values[step]):
            logits = inductive = transductive = self._by_likelihood(objective, theta, phi, batch.query)
        labels = self.labels.to(batch.classes.device)[batch.classes]
        for t in range(batch.classes.shape[0]):
            support, query, _ = (_take(part, t) for part in batch)
            drawn, own, alone, together = (
                _take(part, t) for part in (samples, logits, inductive, transductive)
            )
            seen = (drawn, own, alone, together, self.others)
            outcome = Outcome(support, query, labels[t], losses[t], self.judge, *seen)
            for name, values in self.values[step].items():
                self._add(name, values, outcome)
        if step == self.steps and self.shown is None:
            first = (batch.support.x, batch.query.x, batch.query.y, samples, logits, labels)
            self.shown = Shown(*(_take(part, 0) if part is None else part[0].cpu() for part in first))

    def _add(self, name: str, values: list[float], outcome: Outcome) -> None:
        """Add the metric of an episode; of one that looks at all episodes, what it needs for that."""
        metric = self.metrics[name]
        if not isinstance(metric, PooledMetric):
            values.append(metric(outcome))
            return
        metric.check(outcome)
        self._kept.setdefault(name, []).append(metric.gather(outcome))

    def _conclude(self) -> None:
        """Fill in the metrics that look at all episodes at once."""
        while self._kept:
            name, kept = self._kept.popitem()
            metric = self.metrics[name]
            assert isinstance(metric, PooledMetric)
            self.values[self.steps][name] = metric.conclude(kept)

    def _sample(self, call: Callable[..., Tensor], batch: Episode) -> Tensor:
        """Draw M images a class with the same noise at every step: (T, N, M, C, H, W).

        Many are drawn in parts, each with a key of its own, so that a model's memory stays bounded.
        """
        tasks, ways = batch.classes.shape
        key, parts = rng.fold_in(batch.query.key, 1), []
        for index, count in enumerate(_parts(self.samples, max(1, AT_ONCE // ways))):
            y = torch.arange(ways, device=batch.classes.device).repeat_interleave(count)
            own = rng.fold_in(key, index) if index else key
            parts.append(call("sample", y.expand(tasks, -1), own).unflatten(1, (ways, count)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _by_likelihood(self, objective: Objective, theta: Params, phi: Params, query: Shots) -> Tensor:
        """Return the logits of a generator, (T, N Q, N), one task after the other for the sake of memory."""
        samples = self.importance_samples
        return torch.stack(
            [
                class_logits(objective, theta | {n: x[t] for n, x in phi.items()}, _take(query, t), samples)
                for t in range(query.x.shape[0])
            ]
        )

    def __len__(self) -> int:
        """Return the number of episodes measured so far."""
        return self._episodes

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return name -> mean, ci95, n over episodes, at the last step."""
        self._conclude()
        return {name: summarize(values) for name, values in self.values[self.steps].items()}

    def curve(self) -> list[dict[str, Any]]:
        """Return for every measured step the seconds and FLOPs of adaptation an episode, and the metrics.

        FLOPs are those of :func:`metagen.functional.flops.adaptation_flops`, None where they cannot be
        counted; neither they nor the seconds hold the drawing of samples.
        """
        self._conclude()
        return [
            {
                "step": step,
                "seconds": self._seconds[step] / max(len(self), 1),
                "flops": self._flops and self._flops[0] + step * self._flops[1],
                "metrics": {name: summarize(episodes) for name, episodes in values.items()},
            }
            for step, values in self.values.items()
        ]


def _parts(count: int, most: int) -> list[int]:
    """Return the sizes of the parts of ``count``, at most ``most`` each."""
    return [min(most, count - start) for start in range(0, count, most)] or [0]


def _at_the_end(metric: Metric, curves: Curves) -> bool:
    """Return whether a metric is measured after the last adaptation step only."""
    return isinstance(metric, PooledMetric) or (metric.costly and curves == "cheap")


def _logits(call: Callable[..., Tensor], objective: Objective, batch: Episode) -> tuple[Tensor, Tensor]:
    """Return the inductive and the transductive logits of the query images, (T, N Q, N) each."""
    query, support = (shots.x.flatten(1, 2) for shots in (batch.query, batch.support))
    together = call("logits", query)
    return (call("logits", query, support) if objective.model.batch_statistics else together), together


def _take(part: Any, index: int) -> Any:
    """Return task ``index`` of a tensor, of a tuple of tensors, or of nothing."""
    if part is None or isinstance(part, Tensor):
        return None if part is None else part[index]
    return type(part)(*(leaf[index] for leaf in part))
