"""What a metric sees of an episode, and what it returns."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

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
    logits:  (N * Q, N) of the query images (classifiers), normalised as in training.
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
        unit: ``"%"``, ``"nats"``, or ``""`` for a ratio.
        better: which direction is an improvement. For a ratio to real images, the direction that
            leaves the usual failure (copies, or one image per class): 1 is the ideal.
        needs_judge: reads ``outcome.judge``, a classifier that somebody must train first.
        needs_samples: reads ``outcome.samples``.
        needs_logits: reads ``outcome.logits``.
        needs_others: reads ``outcome.others``.
    """

    name: str
    unit: Literal["%", "nats", ""] = ""
    better: Literal["higher", "lower"] = "higher"
    needs_judge: bool = False
    needs_samples: bool = False
    needs_logits: bool = False
    needs_others: bool = False

    def __call__(self, outcome: Outcome) -> float:
        """Return the metric of one episode; NaN where it is undefined.

        Raises:
            MetagenError: the task gives no samples, logits or judge but the metric needs them.
        """
        for part in ("samples", "logits", "judge", "others"):
            if getattr(self, f"needs_{part}") and getattr(outcome, part) is None:
                raise MetagenError(
                    f"metric {self.name} needs {part}, which this task does not give: "
                    f"leave it out of metric=[...]"
                )
        return float(self.measure(outcome))

    def unfit(self, model: Any) -> str | None:
        """Return why the metric says nothing of ``model`` and what does; None where it fits."""
        return None

    def measure(self, outcome: Outcome) -> Tensor:
        """Return the metric as a scalar tensor; what the metric needs is there."""
        raise NotImplementedError
