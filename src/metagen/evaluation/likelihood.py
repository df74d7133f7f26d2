"""The likelihood of a new image of a class, given none, one, two, ... others."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import MinLen
from torch import Tensor

from metagen.core.episode import Episode, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.vectorize import Vectorizer
from metagen.ranges import NonNegativeInt, PositiveInt, checked
from metagen.statistics import summarize


class Likelihood:
    r"""-log p(x | t images of its class), in nats per image, over the number t of context images.

    .. math:: \operatorname{mean}_{n,q} -\log p(x_{nq} \mid U(\theta; x_{n1}, \dots, x_{nt}))

    The context is the first t support images of a class and the targets are its query images: the same for
    every t, so that values of different t are paired, and never among the context. Without context the
    model is its prior (:meth:`metagen.core.learner.Learner.prior`). What p is, the model says
    (``model.likelihood``): exact, or the importance-weighted bound of Burda, Grosse, Salakhutdinov
    (*Importance weighted autoencoders*, ICLR 2016) with S samples, which is never above it.

    ``with_replacement`` adds a column that leaks: context and target are drawn with replacement
    from all K + Q images of the class, so that a target is among t context images with probability
    1 - (1 - 1 / (K + Q))^t. It exists to be set beside tables made that way (Bartunov and Vetrov: *Few-shot
    generative modelling with generative matching networks*, AISTATS 2018), and for nothing else.

    Args:
        contexts: the numbers t, at most ``task.shots``.
        importance_samples: S, for models whose likelihood is a bound.
        with_replacement: also the column that leaks.

    Raises:
        MetagenError: an argument is out of range.
    """

    @checked
    def __init__(
        self,
        contexts: Annotated[Sequence[NonNegativeInt], MinLen(1)] = (0, 1, 2, 4, 5, 9, 19),
        importance_samples: PositiveInt = 1000,
        with_replacement: bool = False,
    ) -> None:
        if len(set(contexts)) < len(contexts):
            raise MetagenError(f"likelihood.contexts={list(contexts)}: expected distinct numbers of images")
        self.contexts, self.importance_samples = tuple(sorted(contexts)), importance_samples
        self.values: dict[int, list[float]] = {t: [] for t in self.contexts}
        self.leaky: dict[int, list[float]] = {t: [] for t in self.contexts} if with_replacement else {}
        self.kind, self.pixels, self.dimensions = "", "", 1

    def check(self, model: Any, shots: int) -> None:
        """Refuse a model without likelihood, and more context images than there are.

        Raises:
            MetagenError: what does not fit and what would.
        """
        if getattr(model, "likelihood", None) is None:
            raise MetagenError(
                f"{type(model).__name__} has no likelihood of pixels in nats: leave it out with "
                f"likelihood=none, or use a model that has one, such as model=vae"
            )
        if self.contexts[-1] > shots:
            raise MetagenError(
                f"likelihood.contexts asks for {self.contexts[-1]} context images but an episode has "
                f"task.shots={shots}: raise task.shots, or lower the contexts"
            )
        self.kind, self.pixels = model.likelihood, getattr(getattr(model, "pixels", None), "name", "")

    def update(self, objective: Objective, learner: Any, batch: Episode, over: Vectorizer) -> None:
        """Measure the T episodes of ``batch``."""
        self.dimensions = math.prod(batch.query.x.shape[-3:])
        for t in self.contexts:
            context = batch.support._replace(x=batch.support.x[:, :, :t], y=batch.support.y[:, :, :t])
            self.values[t] += self._nll(objective, learner, context, batch.query, over)
            if self.leaky:
                self.leaky[t] += self._nll(objective, learner, *with_replacement(batch, t), over)

    def _nll(
        self, objective: Objective, learner: Any, context: Shots, target: Shots, over: Vectorizer
    ) -> list[float]:
        """Return the mean over the targets of each episode."""
        params = objective.params()
        ways, t = context.y.shape[1:]

        def one(context: Shots, target: Shots) -> Tensor:
            phi = learner.adapt(objective, params, context) if t else learner.prior(objective, params, ways)
            return -objective.call("log_likelihood", phi, target, self.importance_samples).mean()

        return over(one)(context, target).tolist()

    def summary(self) -> dict[str, Any]:
        """Return what was measured, with every episode's value, for ``metrics.json``."""
        exact = self.kind == "exact"
        return {
            "kind": self.kind,
            "importance_samples": None if exact else self.importance_samples,
            "unit": "nats",
            "pixels": self.pixels,
            "contexts": [self._row(t, values) for t, values in self.values.items()],
            "with_replacement_leaky": [self._row(t, values) for t, values in self.leaky.items()],
        }

    def _row(self, t: int, values: list[float]) -> dict[str, Any]:
        """Return a row in nats per image, with its mean in bits per pixel and channel, too."""
        found = summarize(values)
        mean = found["mean"]
        bits = None if mean is None else mean / (self.dimensions * math.log(2))
        return {"images": t, **found, "bits_per_dimension": bits, "per_episode": values}


def with_replacement(batch: Episode, t: int) -> tuple[Shots, Shots]:
    """Draw t context images and one target of each class from all of its images, with replacement."""
    images = torch.cat([batch.support.x, batch.query.x], 2)
    tasks, ways, count = images.shape[:3]
    draws = rng.uniform(rng.fold_in(batch.query.key, t + 2), (ways, t + 1))
    picks = (draws * count).long().clamp(max=count - 1)
    x = images[torch.arange(tasks)[:, None, None], torch.arange(ways)[:, None], picks]
    y = torch.arange(ways, device=x.device)[:, None].expand(tasks, ways, t + 1)
    return (
        Shots(x[:, :, :t], y[:, :, :t], batch.support.key),
        Shots(x[:, :, t:], y[:, :, t:], batch.query.key),
    )
