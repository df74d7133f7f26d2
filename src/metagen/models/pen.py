"""The networks of two flows: of deformations, numbers by the vector; of the pen, pixels by the image."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen.functional import rng
from metagen.functional.rows import in_parts
from metagen.models.blocks import Film
from metagen.models.flow import WAVES, waves
from metagen.models.layers import Conv2d, ConvTranspose2d


class VectorField(nn.Module):
    """v(z, t, f): (B, D), (B,) and features (B, F) to (B, D)."""

    def __init__(self, numbers: int, features: int, hidden: int, layers: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(numbers, hidden)
        self.given = nn.Linear(2 * WAVES + features, hidden)
        self.ups = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(layers))
        self.downs = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(layers))
        self.leave = nn.Linear(hidden, numbers)

    def forward(self, z: Tensor, t: Tensor, features: Tensor) -> Tensor:
        """Return the velocity; the features join before every layer."""
        given = self.given(torch.cat([waves(t), features], 1))
        h = self.enter(z) + given
        for up, down in zip(self.ups, self.downs, strict=True):
            h = h + down(F.silu(up(_normal(h + given))))
        return self.leave(_normal(h))


class Pen(nn.Module):
    """Logits of E[x_1 | x_t, c, f], for x and c (B, C, S, S), times (B,) and features (B, F).

    A UNet at S / 2 and S / 4; the pixels of x and c join again at the end.
    """

    def __init__(self, colours: int, features: int, channels: int, hidden: int) -> None:
        super().__init__()
        wide, few = 2 * channels, channels // 2
        self.mix = nn.Sequential(nn.Linear(2 * WAVES + features, hidden), nn.SiLU())
        self.enter = _film(Conv2d(2 * colours, channels, 4, 2, 1, bias=False), hidden)
        self.left = _Twice(channels, hidden)
        self.down = _film(Conv2d(channels, wide, 4, 2, 1, bias=False), hidden)
        self.low = nn.ModuleList(_Twice(wide, hidden) for _ in range(2))
        self.up = _film(ConvTranspose2d(wide, channels, 4, 2, 1, bias=False), hidden)
        self.merge = _film(Conv2d(wide, channels, 3, padding=1, bias=False), hidden)
        self.right = _Twice(channels, hidden)
        self.leave = ConvTranspose2d(channels, few, 4, 2, 1)
        self.join = Conv2d(few + 2 * colours, few, 3, padding=1)
        self.pixels = Conv2d(few, colours, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, c: Tensor, features: Tensor) -> Tensor:
        """Return logits of the same shape as x."""
        h = self.mix(torch.cat([waves(t), features], 1))
        seen = torch.cat([x, 2 * c - 1], 1)
        half = self.left(self.enter(seen, h), h)
        low = self.down(half, h)
        for block in self.low:
            low = block(low, h)
        out = self.right(self.merge(torch.cat([self.up(low, h), half], 1), h), h)
        out = F.silu(self.join(torch.cat([F.silu(self.leave(out)), seen], 1)))
        logits: Tensor = self.pixels(out)
        return logits

    def error(self, b: Tensor, c: Tensor, features: Tensor, key: Tensor) -> Tensor:
        """Return the cross-entropy of images b (B, C, S, S) at a random time, a mean over pixels, (B,)."""
        e = rng.normal(rng.fold_in(key, 1), tuple(b.shape), b.dtype)
        t = rng.normal(rng.fold_in(key, 2), (len(b),), b.dtype).sigmoid()
        xt = torch.lerp(e, 2 * b - 1, t[:, None, None, None])
        logits = self(xt, t, c, features)
        return F.binary_cross_entropy_with_logits(logits, b, reduction="none").mean((1, 2, 3))

    def sample(
        self, c: Tensor, features: Tensor, key: Tensor, noise: float, start: float, steps: int
    ) -> Tensor:
        """Return images (B, C, S, S): c drawn anew, from noise at time ``start``, blended with c."""
        e = noise * rng.normal(key, tuple(c.shape), c.dtype)
        x = torch.lerp(e, 2 * c - 1, start)
        return in_parts(partial(self._carried, start=start, steps=steps), x, c, features)

    def _carried(self, x: Tensor, c: Tensor, features: Tensor, start: float, steps: int) -> Tensor:
        """Return where the flow carries x (B, C, S, S)."""
        for i in range(steps):
            t = x.new_full((x.shape[0],), start + (1 - start) * i / steps)
            mean = 2 * self(x, t, c, features).sigmoid() - 1
            x = x + (mean - x) / (steps - i)  # (D - x) / (1 - t) over a step
        return ((x + 1) / 2).clamp(0, 1)


class _Twice(nn.Module):
    """x + two convolutions of it."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.one = _film(Conv2d(channels, channels, 3, padding=1, bias=False), hidden)
        self.two = _film(Conv2d(channels, channels, 3, padding=1, bias=False), hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        out: Tensor = x + self.two(self.one(x, h), h)
        return out


def _film(conv: Conv2d | ConvTranspose2d, hidden: int) -> Film:
    return Film(conv, hidden, 8 if conv.out_channels % 8 == 0 else 1)


def _normal(h: Tensor) -> Tensor:
    """Return h (B, F) of unit mean square."""
    return h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)
