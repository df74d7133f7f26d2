"""The contract of a metric: what it sees of an episode, and what it returns."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from metagen.core.episode import Shots
from metagen.errors import MetagenError


class Outcome(NamedTuple):
    """What evaluation knows of one episode after the adaptation.

    support: the N x K images that the learner saw.
    query:   N x Q other real images of the same classes.
    labels:  (N,) int64, the classes' ids in the data set, which are the judge's classes.
    loss:    (), the adapted model's loss on ``query``, in the model's ``loss_unit``.
    judge:   maps images (B, C, H, W) to logits (B, classes of the data set); one with ``features(x)``
             also to features (B, F), which metrics between sets of images compare.
    samples: (N, M, C, H, W) new images in [0, 1], M of each class (generators).
    logits:  (N * Q, N) of the query images: a classifier's, normalised as in training, or log p(x | class)
             of a generator (:mod:`metagen.evaluation.generative_classifier`).
    inductive, transductive: the same, normalised by the support's statistics, or with each other.
    others: real images of the classes that are not tested, (R, A, C, H, W) to learn from and
             (R, B, C, H, W) to test on.
    """

    support: Shots
    query: Shots
    labels: Tensor
    loss: Tensor
    judge: Callable[[Tensor], Tensor] | None = None
    samples: Tensor | None = None
    logits: Tensor | None = None
    inductive: Tensor | None = None
    transductive: Tensor | None = None
    others: tuple[Tensor, Tensor] | None = None


class Metric:
    """One number per episode; a table averages it over episodes.

    Attributes:
        name: the key in ``metrics.json``.
        unit: ``"%"``, ``"nats"``, ``"bits"``, or ``""`` for a ratio.
        better: which direction is an improvement. For a ratio to real images, the direction that
            leaves the usual failure (copies, or one image per class): 1 is the ideal.
        words: what it is, in one plain line; by default the first line of the class.
        beside: the metric that finds out a model that wins this one with one image over and over; the two are
            shown together.
        real: what real images score, where that is known beforehand.
        needs_judge: reads ``outcome.judge``, a classifier that somebody must train first.
        needs_samples: reads ``outcome.samples``.
        needs_logits: reads ``outcome.logits``.
        needs_others: reads ``outcome.others``.
        costly: takes far longer than to draw the samples; with ``curves=cheap`` it is measured after the last
            adaptation step only.
        trains: trains a network for minutes, so that nobody tries it out beforehand.
    """

    name: str
    unit: Literal["%", "nats", "bits", ""] = ""
    better: Literal["higher", "lower"] = "higher"
    words: str = ""
    beside: str | None = None
    real: float | None = None
    needs_judge: bool = False
    needs_samples: bool = False
    needs_logits: bool = False
    needs_others: bool = False
    costly: bool = False
    trains: bool = False

    @property
    def about(self) -> str:
        """Return what the metric is and which direction is better, in one line."""
        words = (self.words or (inspect.getdoc(type(self)) or self.name).splitlines()[0]).rstrip(".")
        real = "" if self.real is None else f"; real images have {self.real:g}"
        return f"{words} ({self.better} is better{real})"

    def real_score(self, judge: Any) -> float | None:
        """Return what real images score with ``judge``, where that is known without measuring it."""
        return self.real

    def __call__(self, outcome: Outcome) -> float:
        """Return the metric of one episode; NaN where it is undefined.

        Raises:
            MetagenError: the task gives no samples, logits or judge but the metric needs them.
        """
        self.check(outcome)
        return float(self.measure(outcome))

    def check(self, outcome: Outcome) -> None:
        """Refuse an outcome without what the metric needs."""
        for part in ("samples", "logits", "judge", "others"):
            if getattr(self, f"needs_{part}") and getattr(outcome, part) is None:
                raise MetagenError(
                    f"metric {self.name} needs {part}, which this task does not give: "
                    f"leave it out of metric=[...]"
                )

    def unfit(self, model: Any) -> str | None:
        """Return why the metric says nothing of ``model`` and what does; None where it fits."""
        return None

    def measure(self, outcome: Outcome) -> Tensor:
        """Return the metric as a scalar tensor; what the metric needs is there."""
        raise NotImplementedError


class PooledMetric(Metric):
    """A metric that looks at all episodes at once, such as by a network that learns from all of them.

    It is measured after the last adaptation step only, and still is one number per episode.
    """

    def gather(self, outcome: Outcome) -> Any:
        """Return what is kept of one episode until the end, as small as can be."""
        raise NotImplementedError

    def conclude(self, kept: Sequence[Any]) -> list[float]:
        """Return the number of each episode."""
        raise NotImplementedError

    def measure(self, outcome: Outcome) -> Tensor:
        """Return the metric as if there were this one episode."""
        return torch.tensor(self.conclude([self.gather(outcome)])[0])
