"""The standard backbone of few-shot classification."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from metagen.errors import MetagenError
from metagen.models.base import Classifier


class BatchStatNorm(nn.Module):
    r"""Normalisation by the statistics of the batch at hand: no running averages.

    .. math:: y = (x - \mu_B) / \sqrt{\sigma_B^2 + \epsilon} \cdot \gamma + \beta

    Composed from ``var_mean``, because the second derivative of the native batch norm is silently
    wrong under ``torch.func.vmap``. Query images are normalised with each other (transduction),
    as in MAML.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over B, H and W."""
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(var + self.eps) * self.weight[:, None, None]
        return (x - mean) * scale + self.bias[:, None, None]


class Conv4(Classifier):
    """Four blocks of 3x3 convolution, batch statistics, ReLU and 2x2 pooling, then a linear head.

    Vinyals et al., *Matching Networks for One Shot Learning*, NeurIPS 2016; Finn et al., *MAML*,
    ICML 2017.

    Args:
        ways: number of classes of an episode.
        size: height and width of the images, at least 16.
        channels: channels of the images.
        filters: filters of every block.
    """

    per_class = ("readout.weight", "readout.bias")
    head = ("readout.*",)

    def __init__(self, ways: int = 5, size: int = 28, channels: int = 1, filters: int = 64) -> None:
        super().__init__()
        if size < 16:
            raise MetagenError(f"model.size={size}: Conv4 pools four times, give at least 16")
        widths = [channels] + [filters] * 4
        self.body = nn.Sequential(*(self._block(*pair) for pair in pairwise(widths)), nn.Flatten())
        self.readout = nn.Linear(filters * (size // 16) ** 2, ways)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(conv, BatchStatNorm(outputs), nn.ReLU(), nn.MaxPool2d(2))

    def logits(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, N)."""
        return self.readout(self.body(x))
