"""Building blocks of generators: nets that read images, FiLM layers, Gaussians and Bernoullis."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen.core.episode import Params, Shots
from metagen.core.model import Generator
from metagen.models.layers import Conv2d, ConvTranspose2d, GroupNorm


class SetGenerator(Generator):
    """A generator that reads a support set: each image by itself, then all images of a class to one row.

    Attributes:
        set_encoder: maps images (B, C, H, W) to rows (B, D).
        aggregate: maps the rows of K images (N, K, D) to those of N classes (N, D).
    """

    encoder = ("set_encoder.*", "aggregate.*")
    set_encoder: nn.Module
    aggregate: nn.Module

    def encode(self, support: Shots) -> Params:
        """Return ``context`` (N, D): what is seen in each of the K images of a class, aggregated."""
        rows = self.set_encoder(support.x.flatten(0, 1))
        return {"context": self.aggregate(rows.reshape(*support.y.shape, -1))}


class SetEncoder(nn.Module):
    """Map images (B, C, S, S) to rows (B, D): maps, S halved ``times`` over, then a vector."""

    def __init__(
        self, size: int, maps: int, features: int, channels: int, colours: int = 1, times: int = 2
    ) -> None:
        super().__init__()
        self.down = down(channels, colours, times)
        self.maps = Conv2d(2 * channels, maps, 1)
        self.features = flat(size >> times, channels, features)

    def forward(self, x: Tensor) -> Tensor:
        """Read every image by itself."""
        seen = self.down(x)
        return torch.cat([self.maps(seen).flatten(1), self.features(seen)], -1)


class Film(nn.Module):
    """SiLU((1 + a(h)) GroupNorm(conv(x)) + b(h)) (Perez et al.: *FiLM*, AAAI 2018).

    Args:
        conv: the convolution, without bias.
        hidden: length of h, of which a and b are linear functions.
        groups: of the norm, a divisor of the convolution's channels.
    """

    def __init__(self, conv: Conv2d | ConvTranspose2d, hidden: int, groups: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = GroupNorm(groups)
        self.affine = nn.Linear(hidden, 2 * conv.out_channels)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Map (B, C, H, W) and h (B, hidden) to (B, O, H', W')."""
        scale, shift = self.affine(h)[..., None, None].chunk(2, 1)
        return F.silu(self.norm(self.conv(x)) * (1 + scale) + shift)


class SelfAttention(nn.Module):
    """x + W softmax(q' k / sqrt(d)) v over the places of a map, with the norm of x in q, k and v.

    For coarse maps: it takes memory by the square of their places. Written out: exact to second order.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, GroupNorm(math.gcd(8, max(1, channels // 8)))
        self.qkv, self.out = Conv2d(channels, 3 * channels, 1), Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; at the start, to itself but for a bias."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)
        weights = (q.transpose(-2, -1) @ k * q.shape[2] ** -0.5).softmax(-1)
        return x + self.out((v @ weights.transpose(-2, -1)).flatten(1, 2).unflatten(2, x.shape[2:]))


def down(channels: int, colours: int = 1, times: int = 2) -> nn.Sequential:
    """Map (B, C, S, S) to (B, 2 channels, S', S'), with S halved ``times`` over, 2 or more."""
    wide = 2 * channels
    layers = [Conv2d(colours, channels, 4, 2, 1), nn.SiLU(), Conv2d(channels, wide, 4, 2, 1), nn.SiLU()]
    for _ in range(times - 2):
        layers += [Conv2d(wide, wide, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*layers)


def flat(side: int, channels: int, out: int) -> nn.Sequential:
    """Map (B, 2 channels, S, S), S = ``side``, to (B, ``out``)."""
    wide, end = 2 * channels, (side + 1) // 2
    conv = Conv2d(wide, wide, 3, 2, 1)
    return nn.Sequential(conv, nn.SiLU(), nn.Flatten(), nn.Linear(wide * end**2, out))


def ups(times: int, channels: int, hidden: int) -> nn.ModuleList:
    """Return ``times`` layers, each of which doubles the side of (B, channels, H, W), given h (B, hidden)."""
    groups = math.gcd(8, channels)
    convs = (ConvTranspose2d(channels, channels, 4, 2, 1, bias=False) for _ in range(times))
    return nn.ModuleList(Film(conv, hidden, groups) for conv in convs)


def mlp(inputs: int, hidden: int, out: int) -> nn.Sequential:
    """Map (B, inputs) to (B, out) with one layer in between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, out))


Gaussian = tuple[Tensor, Tensor]
"""Mean and log standard deviation, of independent numbers."""


def gaussian(output: Tensor, dim: int = -1) -> Gaussian:
    """Split along ``dim`` into mean and log standard deviation, the latter smoothly bounded to (-4, 4)."""
    mean, log_std = output.chunk(2, dim)
    return mean, 4 * (log_std / 4).tanh()


def divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """Return KL(q || p) of every number, in nats."""
    (mean, log_std), (prior_mean, prior_log_std) = q, p
    log_ratio = log_std - prior_log_std
    gap = (mean - prior_mean) * (-prior_log_std).exp()
    return ((2 * log_ratio).exp() + gap**2 - 1) / 2 - log_ratio


def log_ratio(z: Tensor, noise: Tensor, q: Gaussian, p: Gaussian) -> Tensor:
    """Return log p(z) - log q(z) of every number of z = q's mean + q's standard deviation * ``noise``."""
    prior_noise = (z - p[0]) * (-p[1]).exp()
    return (noise**2 - prior_noise**2) / 2 + q[1] - p[1]


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """Return sum_i x_i log d_i + (1 - x_i) log(1 - d_i) with d = sigmoid(logits), per image (B,)."""
    return (x * logits - F.softplus(logits)).flatten(1).sum(-1)
