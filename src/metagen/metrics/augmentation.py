r"""Samples as training data: what a classifier gains that learns from them beside the few real images.

Antoniou, Storkey, Edwards: *Data augmentation generative adversarial networks*, 2017; with 512 samples of
each class: Hong et al.: *MatchingGAN*, ICME 2020, and *F2GAN*, ACM MM 2020. A convolutional network f is
trained from its initialisation on the K support images of each of N classes and on M samples of each,

.. math:: \min_f \; r \operatorname*{E}_{(x, y) \sim \text{support}} H(y, f(x))
          + (1 - r) \operatorname*{E}_{(x, y) \sim \text{samples}} H(y, f(x))

with H the cross-entropy, its labels smoothed, and tested on the query images. Unlike the classification
accuracy score (:mod:`metagen.metrics.classification_accuracy_score`) it asks for what samples are worth
in use: a generator that copies the support has the accuracy of the support alone. The figure depends on
the network and on its training, so compare figures of the same settings only; published ones are of a ResNet.
"""

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from metagen.core.metric import Outcome
from metagen.functional import rng
from metagen.metrics.fitted import fit, layer
from metagen.metrics.of_images import OfImages
from metagen.ranges import MANY, Decay, PositiveFloat, PositiveInt, Probability, Seed, Width, checked

AT_ONCE = 512
"""Images that are classified at a time."""


class Augmentation(OfImages):
    """Accuracy on real images of a network trained on the support and the samples, in %; 100 / N is blind.

    ``images="support"``: trained on the N * K support images alone, the control without a generator. The
    accuracy of the episode's N * Q query images; NaN for N = 1 or samples that are not finite.

    Args:
        images: what it is trained on, see :class:`~metagen.metrics.of_images.OfImages`.
        steps: of training.
        batch: images of a step, 2 or more, since the network normalises them with each other.
        width: channels of the network's first layer, 4 times as many of its last.
        lr: peak of a one-cycle schedule of AdamW.
        share: r, that of support images in a batch; with ``images="support"`` all are.
        smoothing: of the labels.
        seed: of the network's initialisation and of the order of the images, together with the episode.

    Raises:
        MetagenError: an argument is out of range.
    """

    name = "augmentation"
    unit = "%"
    sources = ("samples", "support")
    costly = True
    trains = True

    @checked
    def __init__(
        self,
        images: Literal["samples", "support"] = "samples",
        steps: PositiveInt = 600,
        batch: Annotated[int, Ge(2), Le(MANY)] = 128,
        width: Width = 32,
        lr: PositiveFloat = 4e-3,
        share: Probability = 0.25,
        smoothing: Decay = 0.1,
        seed: Seed = 0,
    ) -> None:
        super().__init__(images)
        self.needs_samples = images == "samples"
        self.steps, self.batch, self.width, self.lr = steps, batch, width, lr
        self.share, self.smoothing, self.seed = share, smoothing, seed

    def measure(self, outcome: Outcome) -> Tensor:
        """Train a network and return its accuracy."""
        support, query = outcome.support.x, outcome.query.x
        samples = support[:, :0] if self.images == "support" else outcome.samples
        assert samples is not None
        if len(support) < 2 or not query.numel() or not samples.isfinite().all():
            return torch.tensor(torch.nan)
        devices = [support.device] if support.is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.manual_seed(int(rng.fold_in(outcome.support.key, self.seed)))
            net = self._trained(support, samples)
        return self._accuracy(net, query)

    def _trained(self, support: Tensor, samples: Tensor) -> nn.Module:
        """Return a classifier that saw images (N, K, C, H, W) and (N, M, C, H, W)."""
        net = ConvNet(support.shape[2], len(support), self.width).to(support.device)
        count = round(self.share * self.batch) if samples.shape[1] else self.batch
        counts = (count, self.batch - count)

        def loss() -> Tensor:
            drawn = [_drawn(x, n) for x, n in zip((support, samples), counts, strict=True) if n]
            x, y = (torch.cat(parts) for parts in zip(*drawn, strict=True))
            return cross_entropy(net(x), y, label_smoothing=self.smoothing)

        return fit(net, loss, self.steps, self.lr, self.name)

    @staticmethod
    @torch.no_grad()
    def _accuracy(net: nn.Module, query: Tensor) -> Tensor:
        """Return the share of images (N, Q, C, H, W) that are recognised, in %."""
        y = torch.arange(len(query), device=query.device).repeat_interleave(query.shape[1])
        guesses = torch.cat([net(part.float()).argmax(-1) for part in query.flatten(0, 1).split(AT_ONCE)])
        return 100 * (guesses == y).double().mean()


class ConvNet(nn.Module):
    """Map images (B, C, H, W) of any size to logits (B, N)."""

    def __init__(self, channels: int, ways: int, width: int) -> None:
        super().__init__()
        wide = 2 * width
        self.net = nn.Sequential(
            *layer(channels, width, side=5, stride=2),
            *layer(width, wide),
            nn.MaxPool2d(2, ceil_mode=True),
            *layer(wide, 2 * wide),
            nn.MaxPool2d(2, ceil_mode=True),
            *layer(2 * wide, 2 * wide),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(16 * 2 * wide, ways),
        ).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; channels go last, which takes two thirds of the time on a CPU."""
        logits: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return logits


def _drawn(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw images of (N, K, C, H, W), float32 (count, C, H, W), and their classes (count,)."""
    ways, shots = images.shape[:2]
    picks = torch.randint(ways * shots, (count,)).to(images.device)
    return images.flatten(0, 1)[picks].float(), picks // shots
