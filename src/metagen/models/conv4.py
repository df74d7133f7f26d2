"""The standard backbone of few-shot classification."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from metagen.core.model import Classifier
from metagen.models.layers import BatchStatNorm, Conv2d, MaxPool2d
from metagen.ranges import Colours, Width, checked


class Conv4(Classifier):
    """Four blocks of 3x3 convolution, batch statistics, ReLU and 2x2 pooling, then a linear head.

    Vinyals et al., *Matching Networks for One Shot Learning*, NeurIPS 2016; Finn et al., *MAML*,
    ICML 2017, whose Omniglot network has strides instead of pooling and a mean over the last map.

    Args:
        ways: number of classes of an episode.
        size: height and width of the images, at least 16.
        channels: channels of the images.
        filters: filters of every block.
        pool: pool by maxima; otherwise the convolutions have stride 2 and the last map is averaged.
        transductive: normalise query images with each other, or by the support's statistics.
    """

    batch_statistics: ClassVar[bool] = True
    # Batch statistics spread the rounding of one image: cosines of the gradient down to 0.9 were measured.
    lowers = "none"

    @checked
    def __init__(
        self,
        ways: Width = 5,
        size: Annotated[int, Ge(16), Le(1024)] = 28,
        channels: Colours = 1,
        filters: Width = 64,
        pool: bool = True,
        transductive: bool = True,
    ) -> None:
        super().__init__()
        self.transductive, self.colours = transductive, channels
        self.body = nn.ModuleList(_Block(*pair, pool) for pair in pairwise([channels] + [filters] * 4))
        self.readout = nn.Linear(filters * (size // 16) ** 2 if pool else filters, ways)
        self.pool = pool

    def features(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to features (B, F)."""
        given = None if support is None else support.shape[0]
        if support is not None:
            x = torch.cat([support, x])
        for block in self.body:
            x = block(x, given)
        return (x.flatten(1) if self.pool else x.mean((2, 3)))[given:]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, pool: bool) -> None:
        super().__init__()
        # The norm takes away any bias.
        self.conv = Conv2d(inputs, outputs, 3, stride=1 if pool else 2, padding=1, bias=False)
        self.norm = BatchStatNorm(outputs)
        self.pool = MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor, given: int | None) -> Tensor:
        # ReLU keeps the order of values: after pooling it gives the same and reads a quarter.
        return self.pool(self.norm(self.conv(x), given)).relu()
