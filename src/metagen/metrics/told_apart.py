r"""A classifier two-sample test: can a network that has seen many pairs tell generated from real?

A classifier two-sample test (Lopez-Paz and Oquab: *Revisiting classifier two-sample tests*, ICLR 2017). A
critic learns to tell pairs (support image, other real image of the class) from pairs (support image, sample),

.. math:: 50 \, (\operatorname{mean}_r [f(m, r) > 0] + \operatorname{mean}_s [f(m, s) \le 0])

in %, on classes that it has not seen: it learns from one half of all tested classes and is measured on the
other, and the other way round. 50: it cannot tell them; 100: always. It sees the support image, so that
copies and drawings of another character are told, too. A larger network that learns for longer would tell
more, so compare figures of the same settings and the same number of episodes only. Both recognizability and
diversity can be had by a mere warp of the support; this cannot.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from metagen.core.metric import Outcome, PooledMetric
from metagen.metrics.fitted import fit, layer
from metagen.metrics.of_images import OfImages
from metagen.ranges import PositiveFloat, PositiveInt, Seed, Width, checked


class Pairs(NamedTuple):
    """What is kept of an episode: images uint8 (N, P, C, H, W), ids of the classes (N,)."""

    classes: Tensor
    support: Tensor
    real: Tensor
    other: Tensor


class ToldApart(OfImages, PooledMetric):
    """Balanced accuracy with which a critic tells samples from real images, given a support image, in %.

    NaN where only one class is tested, or a sample is not finite. With ``images="real"`` one half of the real
    images is held against the other: 50 but for chance; what differs from 50 is what the critic's figures
    are uncertain by, NaN for Q < 2.

    Args:
        images: see :class:`~metagen.metrics.of_images.OfImages`.
        steps: of training of each of the two critics.
        batch: pairs of each kind in a step.
        width: channels of the critic's first layers.
        lr: peak of a one-cycle schedule of AdamW.
        black_and_white: compare ink only (pixels above 1/2): where strokes are the matter, shades of grey,
            which depend on how images were resampled, would tell all.
        seed: of the halves, the critic and the order of the pairs.

    Raises:
        MetagenError: an argument is out of range.
    """

    name = "told_apart"
    unit = "%"
    better = "lower"

    @checked
    def __init__(
        self,
        images: Literal["samples", "real"] = "samples",
        steps: PositiveInt = 400,
        batch: PositiveInt = 64,
        width: Width = 32,
        lr: PositiveFloat = 4e-3,
        black_and_white: bool = True,
        seed: Seed = 0,
    ) -> None:
        super().__init__(images)
        self.needs_samples = images == "samples"
        self.steps, self.batch, self.width, self.lr = steps, batch, width, lr
        self.black_and_white, self.seed = black_and_white, seed

    def compared(self, outcome: Outcome) -> tuple[Tensor, Tensor]:
        """Return what is held against what, as many of each: (N, P, C, H, W) twice."""
        if self.images == "real":
            half = outcome.query.x.shape[1] // 2
            return outcome.query.x[:, :half], outcome.query.x[:, half : 2 * half]
        assert outcome.samples is not None
        count = min(outcome.query.x.shape[1], outcome.samples.shape[1])
        return outcome.query.x[:, :count], outcome.samples[:, :count]

    def gather(self, outcome: Outcome) -> Pairs | None:
        """Keep the pairs of an episode as bytes; nothing of one whose samples are not finite."""
        real, other = self.compared(outcome)
        if real.shape[1] == 0 or not other.isfinite().all():
            return None
        support = outcome.support.x
        turns = torch.arange(real.shape[1], device=support.device) % support.shape[1]
        images = (self._bytes(x) for x in (support[:, turns], real, other))
        return Pairs(outcome.labels.cpu(), *images)

    def conclude(self, kept: Sequence[Pairs | None]) -> list[float]:
        """Train both critics and return the accuracy in each episode."""
        pairs = [part for part in kept if part is not None]
        found = torch.cat([torch.empty(0, dtype=torch.int64), *(part.classes for part in pairs)]).unique()
        if len(found) < 2:
            return [float("nan")] * len(kept)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            order = found[torch.randperm(len(found))]
            halves = order[: len(found) // 2], order[len(found) // 2 :]
            critics = [self._trained(_rows(pairs, half)) for half in halves]
        return [float("nan") if part is None else self._accuracy(part, halves, critics) for part in kept]

    def _bytes(self, x: Tensor) -> Tensor:
        return (255 * ((x > 0.5).float() if self.black_and_white else x.clamp(0, 1))).round().byte().cpu()

    def _trained(self, pairs: Pairs) -> nn.Module:
        """Return a critic of pairs (B, C, H, W) of each kind."""
        count = len(pairs.support)
        critic = Critic(pairs.support.shape[-3], self.width)
        truth = torch.cat([torch.ones(self.batch), torch.zeros(self.batch)])

        def loss() -> Tensor:
            rows = torch.randint(count, (2, self.batch))
            one, two = _both(pairs, rows[0], pairs.real), _both(pairs, rows[1], pairs.other)
            return binary_cross_entropy_with_logits(critic(torch.cat([one, two])), truth)

        return fit(critic, loss, self.steps, self.lr, self.name)

    def _accuracy(self, pairs: Pairs, halves: Sequence[Tensor], critics: Sequence[nn.Module]) -> float:
        """Return the accuracy in an episode; each class is judged by the critic that has not seen it."""
        right = []
        for half, critic in zip(reversed(halves), critics, strict=True):
            rows = _rows([pairs], half)
            for part in torch.arange(len(rows.support)).split(512) if len(rows.support) else ():
                right.append(critic(_both(rows, part, rows.real)) > 0)
                right.append(critic(_both(rows, part, rows.other)) <= 0)
        return 100 * float(torch.cat(right).double().mean())


class Critic(nn.Module):
    """Map pairs of images (B, 2 C, H, W) to a logit each, (B,)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        wide = 2 * width
        self.net = nn.Sequential(
            *layer(2 * channels, width),
            *layer(width, width, stride=2),
            *layer(width, wide),
            nn.MaxPool2d(2),
            *layer(wide, wide),
            nn.AdaptiveMaxPool2d(3),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(9 * wide, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of a real pair."""
        logits: Tensor = self.net(x)[:, 0]
        return logits


def _rows(pairs: Sequence[Pairs], classes: Tensor) -> Pairs:
    """Return all pairs of ``classes``, (B, C, H, W) of each kind."""
    chosen = [torch.isin(part.classes, classes) for part in pairs]
    fields = [
        torch.cat([part[field][rows].flatten(0, 1) for part, rows in zip(pairs, chosen, strict=True)])
        for field in range(1, 4)
    ]
    return Pairs(classes, *fields)


def _both(pairs: Pairs, rows: Tensor, others: Tensor) -> Tensor:
    return torch.cat([pairs.support[rows], others[rows]], 1).float() / 255
