"""The layers that models are made of: those of torch.nn, exact and fast with weights for every task.

Networks made of these layers and of pointwise operations need no other formulation for a batch of
tasks (see :mod:`metagen.functional.grouped`).
"""

import torch
from torch import Tensor, nn

from metagen.functional import grouped as ops


class Conv2d(nn.Conv2d):
    """A convolution: (B, C, H, W) to (B, O, H', W'); square stride and padding, no dilation or groups."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, size, stride, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        return ops.conv2d(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution: (B, C, H, W) to (B, O, H', W')."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, size, stride, padding, bias=bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve (B, C, H, W)."""
        return ops.conv_transpose2d(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))


class BatchStatNorm(nn.Module):
    r"""Normalisation by the statistics of the batch at hand: no running averages.

    .. math:: y = (x - \mu_B) / \sqrt{\sigma_B^2 + \epsilon} \cdot \gamma + \beta

    Args:
        channels: C.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor, given: int | None = None) -> Tensor:
        """Normalise (B, C, H, W) over B, H and W by the statistics of the first ``given`` images (all)."""
        if given is None:
            return ops.batch_norm(x, self.weight, self.bias, self.eps)
        var, mean = torch.var_mean(x[:given], (0, 2, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(var + self.eps) * self.weight[:, None, None]
        return (x - mean) * scale + self.bias[:, None, None]


class GroupNorm(nn.Module):
    """Normalisation of every image over groups of channels and all pixels, without an affine map."""

    def __init__(self, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return ops.group_norm(x, self.groups, self.eps)


class MaxPool2d(nn.Module):
    """The maximum of every ``size`` x ``size`` pixels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H // size, W // size)."""
        return ops.max_pool2d(x, self.size)
