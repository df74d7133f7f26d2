"""Share of generated images that show the class they were asked for."""

from typing import Any, Literal

from torch import Tensor

from metagen.core.metric import Metric, Outcome
from metagen.ranges import checked


class Recognised(Metric):
    """100 * mean over samples of [argmax_c judge(sample)_c == class], in %.

    The classification accuracy score of Ravuri, Vinyals: *Classification Accuracy Score for
    Conditional Generative Models*, NeurIPS 2019, read the other way round: the classifier was
    trained on real images and judges the samples.

    Args:
        among: ``"all"`` classes of the judge compete, or only the N classes of the ``"episode"``.

    Raises:
        MetagenError: ``among`` is neither.
    """

    name = "recognised"
    words = (
        "share of the new images that a classifier of real ones takes for the class they were asked for, in %"
    )
    unit = "%"
    beside = "diversity"
    needs_judge = True
    needs_samples = True

    @checked
    def __init__(self, among: Literal["all", "episode"] = "all") -> None:
        self.among = among

    def real_score(self, judge: Any) -> float | None:
        """Return the share of real images that the judge recognises, among all of its classes."""
        return getattr(judge, "accuracy", None) if self.among == "all" else None

    def measure(self, outcome: Outcome) -> Tensor:
        """Count the recognised ones of samples (N, M, C, H, W)."""
        assert outcome.judge is not None
        assert outcome.samples is not None
        n, m = outcome.samples.shape[:2]
        logits = outcome.judge(outcome.samples.flatten(0, 1))
        labels = outcome.labels.to(logits.device)
        if self.among == "episode":
            logits, labels = logits[:, labels], labels.new_tensor(range(n))
        return 100 * (logits.argmax(-1).view(n, m) == labels[:, None]).double().mean()
