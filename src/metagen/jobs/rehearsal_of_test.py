"""The metrics of a test on made-up images, before anything is trained: is each of them defined?"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metagen.core.episode import Shots
from metagen.core.metric import Metric, Outcome, PooledMetric
from metagen.errors import MetagenError, UsageError
from metagen.functional import rng
from metagen.jobs.rehearsal import reason

WAYS = 3
"""Classes at most of the made-up episode."""
SIDE = 8
"""Of its images, whose number is what counts."""
MOST = 4096
"""Images a class at most."""
FEATURES = 16

log = logging.getLogger(__name__)


class MadeUp:
    """A judge of fixed random weights; what the real one refuses to say it refuses, too."""

    def __init__(self, judge: Any, pixels: int) -> None:
        self.judge = judge
        self.weights = rng.normal(rng.key(2), (pixels, FEATURES))

    def __call__(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits."""
        if self.judge is not None and not self.judge.has_classes:
            self.judge(x)
        return self.features(x)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features."""
        return x.flatten(1) @ self.weights


def check_metrics(metrics: Mapping[str, Metric], judge: Any, task: Mapping[str, Any], samples: int) -> None:
    """Refuse a test whose first metric would be undefined for as many images as it has; others are logged.

    Those that learn, from all episodes or from other classes, are not asked.

    Args:
        metrics: by name; sweeps and comparisons go by the first one.
        judge: of the configuration, untrained.
        task: its configuration.
        samples: drawn images a class.

    Raises:
        MetagenError: there is one, or the judge cannot serve a metric.
    """
    outcome = _outcome(judge, task, samples)
    shots, queries = outcome.support.x.shape[1], outcome.query.x.shape[1]
    drawn = "" if outcome.samples is None else f" and {samples} drawn"
    for index, (name, metric) in enumerate(metrics.items()):
        learns = isinstance(metric, PooledMetric) or metric.needs_others or metric.trains
        if learns or not math.isnan(_tried(name, metric, outcome)):
            continue
        said = (
            f"metric {name} is undefined for {shots} support, {queries} query{drawn} images a class: set "
            f"samples or task.test_queries higher, or a k of it lower, or leave it out of metric=[...]"
        )
        if index == 0:
            raise UsageError(said)
        log.warning("%s", said)


def _tried(name: str, metric: Metric, outcome: Outcome) -> float:
    try:
        return metric(outcome)
    except MetagenError:
        raise
    except Exception as error:
        raise UsageError(f"metric {name} fails on made-up images ({reason(error)}): mend it") from error


def _outcome(judge: Any, task: Mapping[str, Any], samples: int) -> Outcome:
    """Return what the test would know of an episode, with noise for images."""
    ways = min(task.get("test_ways") or task.get("ways") or 2, WAYS)
    shots = task.get("test_shots") or task.get("shots") or 1
    queries = task.get("test_queries") or task.get("queries") or 2
    generates = task.get("kind") == "generate"
    support, query = _shots(0, ways, shots), _shots(1, ways, queries)
    logits = rng.normal(rng.key(3), (ways * query.x.shape[1], ways))
    drawn = _shots(4, ways, samples).x if generates else None
    made_up = MadeUp(judge, SIDE * SIDE)
    return Outcome(
        support, query, torch.arange(ways), torch.tensor(1.0), made_up, drawn, logits, logits, logits
    )  # fmt: skip


def _shots(seed: int, ways: int, count: int) -> Shots:
    count = min(count, MOST)
    x = rng.uniform(rng.key(seed), (ways, count, 1, SIDE, SIDE))
    return Shots(x, torch.arange(ways)[:, None].expand(ways, count), rng.key(seed, 1))
