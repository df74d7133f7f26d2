"""Attention in context: the blocks of a transformer over images that see the images before them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Seen(NamedTuple):
    """Keys and values (N, heads, S, size) of the images that one layer may look at."""

    keys: Tensor
    values: Tensor


class Block(nn.Module):
    """h + own(h), + others(h), + mlp(h): attention within the image, to other images, and pointwise."""

    def __init__(self, width: int, heads: int, second_order: bool) -> None:
        super().__init__()
        self.heads, self.second_order = heads, second_order
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(3))
        self.own, self.own_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.others, self.others_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        # What the first image, which sees no other, looks at.
        self.sink = nn.Parameter(0.02 * torch.randn(2, heads, 1, width // heads))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor, ways: int, images: int, past: Seen | None) -> tuple[Tensor, Seen]:
        """Map tokens (N T, L, width); return them and what they show to other images."""
        q, k, v = self._split(self.own(self.norms[0](h)))
        h = h + self.own_out(merge(self._attend(q, Seen(k, v), causal=True)))
        length = h.shape[1]
        q, k, v = self._split(self.others(self.norms[1](h)).reshape(ways, images * length, -1))
        sink_k, sink_v = (s.expand(ways, -1, -1, -1) for s in self.sink)
        shown = Seen(torch.cat([sink_k, k], 2), torch.cat([sink_v, v], 2))
        seen, mask = (past, None) if past is not None else (shown, _before(images, length, h.device))
        found = merge(self._attend(q, seen, mask))
        return self._finish(h + self.others_out(found).reshape(h.shape)), shown

    def extend(self, h: Tensor, own: Seen | None, past: Seen) -> tuple[Tensor, Seen]:
        """Map one more token of each image, (B, 1, width), given the keys and values of those before it."""
        q, k, v = self._split(self.own(self.norms[0](h)))
        own = Seen(k, v) if own is None else Seen(torch.cat([own.keys, k], 2), torch.cat([own.values, v], 2))
        h = h + self.own_out(merge(self._attend(q, own)))
        q, _, _ = self._split(self.others(self.norms[1](h)))
        return self._finish(h + self.others_out(merge(self._attend(q, past)))), own

    def _attend(self, q: Tensor, seen: Seen, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Return softmax(q k' / sqrt(d)) v over what ``mask`` lets be seen, (B, heads, S, size)."""
        if not self.second_order:
            return F.scaled_dot_product_attention(q, seen.keys, seen.values, mask, is_causal=causal)
        # The fused kernels have no second derivative, and torch chooses them for the whole process: a
        # thread that asked for the plain one would lose it where another thread leaves its own choice.
        scores = q @ seen.keys.transpose(-2, -1) * q.shape[-1] ** -0.5
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ seen.values

    def nothing(self, like: Tensor) -> Seen:
        """Return what is seen where there are no other images, (1, heads, 1, size)."""
        return Seen(*(s[None].to(like.dtype) for s in self.sink))

    def _finish(self, h: Tensor) -> Tensor:
        return h + self.down(F.gelu(self.up(self.norms[2](h)), approximate="tanh"))

    def _split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Map (B, S, 3 width) to queries, keys and values (B, heads, S, size)."""
        return tuple(p.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for p in qkv.chunk(3, -1))


class RMSNorm(nn.Module):
    """x / sqrt(mean x^2 + eps) * g (Zhang and Sennrich, NeurIPS 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale x (..., width)."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def merge(x: Tensor) -> Tensor:
    """Map (B, heads, S, size) to (B, S, width)."""
    return x.transpose(-3, -2).flatten(-2)


def _before(images: int, length: int, device: torch.device) -> Tensor:
    """Say which tokens an image sees: the sink, and all of the images before it; (T L, 1 + T L) bool."""
    number = torch.arange(images, device=device).repeat_interleave(length)
    return F.pad(number[:, None] > number, (1, 0), value=True)
