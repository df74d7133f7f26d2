"""Flow matching: a vector field that carries noise to images, conditioned on the class through a table."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from metagen.core.episode import Shots
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.aggregate import Mean
from metagen.models.blocks import Film, SelfAttention, SetEncoder, SetGenerator
from metagen.models.layers import Conv2d, ConvTranspose2d
from metagen.models.sizes import halvings
from metagen.ranges import WIDE, Colours, Decay, Finite, NonNegativeFloat, SideBy4, Turns, Width, checked

Field = Callable[[Tensor, float], Tensor]
"""v(x, t): states (B, ...) and a time to their velocities (B, ...)."""
Solver = Callable[[Field, Tensor, float, float, int], Tensor]
"""Carries x from time ``start`` to time ``stop``, forwards or backwards, in equal steps."""


class Flow(SetGenerator):
    r"""p(x | c) is the law of x_1 where dx/dt = v(x_t, t, c) and x_0 ~ N(0, I), with c a row of ``context``.

    The field is fitted to straight paths from noise to images (Lipman et al.: *Flow matching for
    generative modeling*, ICLR 2023; Liu et al.: *Flow straight and fast*, ICLR 2023):

    .. math:: \min E (v(x_t, t, c) - (x_1 - x_0))^2, \quad x_t = (1 - t) x_0 + t x_1, \quad t \sim U(0, 1)

    with pixels scaled to [-1, 1]. In training a row is replaced by a learned ``null`` row now and then, so
    that samples may follow the guided field (Ho & Salimans: *Classifier-free diffusion guidance*, 2021)

    .. math:: v = v(x, t, \text{null}) + w (v(x, t, c) - v(x, t, \text{null}))

    where w = 0 ignores the class, w = 1 follows the model and w > 1 trades diversity for likeness.
    A row of D = ``maps`` S^2 + ``features`` numbers is a stack of maps, which join the UNet at its
    coarsest resolution S x S in place, and a vector. All nets run under nested ``torch.func`` transforms.
    """

    head: ClassVar[tuple[str, ...]] = ("context", "net.pixels.*")
    loss_unit = "squared error"

    @checked
    def __init__(
        self,
        size: SideBy4 = 28,
        maps: Width = 12,
        features: Width = 64,
        channels: Annotated[int, Ge(2), Le(WIDE)] = 32,
        hidden: Width = 256,
        context_dropout: Decay = 0.1,
        guidance: NonNegativeFloat = 1.5,
        sample_steps: Turns = 10,
        solver: Solver | None = None,
        aggregate: Callable[[int], nn.Module] = Mean,
        colours: Colours = 1,
        heads: Annotated[int, Ge(0), Le(WIDE)] = 0,
    ) -> None:
        """Build the model for images of ``colours`` x size x size.

        Args:
            size: height and width of an image, a multiple of 4.
            maps: maps of the coarsest resolution in a row of the table.
            features: length of the rest of a row.
            channels: width of the UNet at half the resolution; twice as wide below.
            hidden: width of what is made of time and row, and scales and shifts all layers.
            context_dropout: probability of the null row for an image in training, in [0, 1).
            guidance: w of the samples, 0 or more; all but 1 need a ``context_dropout`` above 0.
            sample_steps: steps of the solver from noise to image.
            solver: :func:`euler` or :func:`heun`, the default.
            aggregate: makes, for rows of D numbers, what maps those of K images (N, K, D) to one (N, D).
            colours: channels of an image, 1 or 3.
            heads: of the self-attention at the coarsest resolution, a divisor of 2 ``channels``; 0: none.

        Raises:
            MetagenError: an argument is out of its range.
        """
        super().__init__()
        _check(channels, context_dropout, guidance, heads)
        times, self.colours, self.image = halvings(size, "Flow"), colours, (colours, size, size)
        self.context_dropout, self.guidance = context_dropout, guidance
        self.sample_steps, self.solver = sample_steps, solver or heun
        row = maps * (size >> times) ** 2 + features
        self.context = nn.Parameter(torch.zeros(1, row))
        self.null = nn.Parameter(torch.zeros(1, row))
        self.set_encoder = SetEncoder(size, maps, features, channels, colours, times)
        self.aggregate = aggregate(row)
        self.net = _UNet((maps, size >> times), row, channels, hidden, colours, times, heads)

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean over images and pixels of (v(x_t, t, c) - (x_1 - x_0))^2, which is not in nats.

        Each image has one noise and one time; even the best field has an error, the spread of images.
        """
        images, c = shots.x.flatten(0, 1), self._rows(shots.y)
        key, count = shots.key, (images.shape[0],)
        x1, x0 = _dequantise(images, rng.fold_in(key, 1)), rng.normal(key, tuple(images.shape), images.dtype)
        t = rng.uniform(rng.fold_in(key, 2), count, images.dtype)
        dropped = rng.uniform(rng.fold_in(key, 3), count, images.dtype) < self.context_dropout
        xt = torch.lerp(x0, x1, t[:, None, None, None])
        v = self.net(xt, t, torch.where(dropped[:, None], self.null, c))
        return (v - (x1 - x0)).square().mean()

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Return images of class indices ``y`` (B,), (B, C, size, size), along the guided field."""
        c = self._rows(y)
        x0 = rng.normal(key, (y.shape[0], *self.image), c.dtype)
        x1 = self.solver(self.field(c, self.guidance), x0, 0.0, 1.0, self.sample_steps)
        return ((x1 + 1) / 2).clamp(0, 1)

    def field(self, c: Tensor, guidance: float = 1.0) -> Field:
        """Return v(x, t) for images of rows ``c`` (B, D), guided by w = ``guidance``."""
        if guidance in (0, 1):
            rows = c if guidance else self.null.expand_as(c)
            return lambda x, t: self.net(x, x.new_full(x.shape[:1], t), rows)
        both = torch.cat([c, self.null.expand_as(c)])

        def guided(x: Tensor, t: float) -> Tensor:
            out = self.net(torch.cat([x, x]), x.new_full((2 * x.shape[0],), t), both)
            v, null = out.unflatten(0, (2, -1)).unbind(0)
            return null + guidance * (v - null)

        return guided

    def log_likelihood(self, shots: Shots, importance_samples: int) -> Tensor:
        """Return a bound of the log-density of the pixels per image, (N, K) nats, without guidance.

        It is the density of continuous pixels in [0, 1]: one of 256 levels x stands for the interval
        x' = (255 x + u) / 256, u ~ U(0, 1), and log 1/S sum_s p(x'_s) bounds, in expectation, the logarithm
        of the mean density there from below (Ho et al.: *Flow++*, ICML 2019). It may be positive, and is not
        comparable with the nats of a Bernoulli likelihood; less C size^2 ln 256 it is that of the levels.
        The solver takes ``sample_steps`` steps, each of which has to differentiate for every pixel.
        """
        images, c = shots.x.flatten(0, 1), self._rows(shots.y)
        densities = []
        for s in range(importance_samples):
            x1 = _dequantise(images, rng.fold_in(rng.fold_in(shots.key, 1), s))
            densities.append(log_density(self.field(c), x1, self.solver, self.sample_steps))
        scale = math.prod(self.image) * math.log(2)  # an interval of length 2 is one of length 1 in pixels
        bound = torch.stack(densities).logsumexp(0) - math.log(importance_samples) + scale
        return bound.reshape(shots.y.shape)

    def _rows(self, y: Tensor) -> Tensor:
        return self.context[y.flatten()]


def euler(v: Field, x: Tensor, start: Finite, stop: Finite, steps: Turns) -> Tensor:
    """Solve dx/dt = v(x, t): x + h v(x, t) in every step, with an error of O(h)."""
    h = (stop - start) / steps
    for i in range(steps):
        x = x + h * v(x, start + i * h)
    return x


def heun(v: Field, x: Tensor, start: Finite, stop: Finite, steps: Turns) -> Tensor:
    """Solve dx/dt = v(x, t) by the explicit trapezoid (Heun, 1900), with an error of O(h^2).

    x + h/2 (k_1 + k_2) in every step, k_1 = v(x, t), k_2 = v(x + h k_1, t + h).
    """
    h = (stop - start) / steps
    for i in range(steps):
        t = start + i * h
        k1 = v(x, t)
        x = x + h / 2 * (k1 + v(x + h * k1, t + h))
    return x


def log_density(v: Field, x: Tensor, solver: Solver, steps: int) -> Tensor:
    r"""Return log p_1(x) of images (B, ...) under dx/dt = v(x, t) from x_0 ~ N(0, I), (B,) nats.

    .. math:: \log p_1(x_1) = \log p_0(x_0) - \int_0^1 \text{tr} \frac{\partial v}{\partial x}(x_t, t) dt

    the instantaneous change of variables (Chen et al.: *Neural ordinary differential equations*, NeurIPS
    2018), solved back from t = 1. The trace is exact; the solver's error remains.
    """

    def joint(state: Tensor, t: float) -> Tensor:
        at = state[:, :-1].reshape(x.shape)
        velocity, trace = with_divergence(lambda x: v(x, t), at)
        return torch.cat([velocity.flatten(1), trace[:, None]], 1)

    end = F.pad(x.flatten(1), (0, 1))
    start = solver(joint, end, 1.0, 0.0, steps)
    return -(start[:, :-1].square() + math.log(2 * math.pi)).sum(1) / 2 + start[:, -1]


def with_divergence(v: Callable[[Tensor], Tensor], x: Tensor, rows: int = 64) -> tuple[Tensor, Tensor]:
    """Return v(x) and the trace of dv/dx of every image of x (B, ...), (B,), ``rows`` of it at a time.

    v must treat each image by itself. Backward mode, as the layers have no forward derivative.
    """
    velocity, pullback = torch.func.vjp(v, x)[:2]
    pixels = x[0].numel()
    basis = torch.eye(pixels, dtype=x.dtype, device=x.device).reshape(pixels, 1, *x.shape[1:])
    trace = x.new_zeros(x.shape[0])
    for some in basis.split(rows):
        pulled = torch.func.vmap(pullback)(some.expand(-1, *x.shape))[0]
        trace = trace + (pulled * some).flatten(2).sum((0, 2))
    return velocity, trace


class _UNet(nn.Module):
    r"""v(x, t, c) = s(t) x + F(x, t, c), for x (B, C, H, W), t (B,) and rows c (B, D).

    s(t) x is the best linear field for pixels of N(0, 1/4), so that F has a target of size one that hardly
    depends on the noise (after Karras et al.: *Elucidating the design space*, NeurIPS 2022).
    """

    def __init__(
        self,
        maps: tuple[int, int],
        row: int,
        channels: int,
        hidden: int,
        colours: int,
        times: int,
        heads: int,
    ) -> None:
        """``maps``: how many of a row, and their side, which is the images' halved ``times`` over."""
        super().__init__()
        self.maps, self.low, wide = *maps, 2 * channels
        self.mix = nn.Sequential(nn.Linear(2 * WAVES + row, hidden), nn.SiLU())
        self.enter = _film(Conv2d(colours, channels, 4, 2, 1, bias=False), hidden)
        self.left = _film(Conv2d(channels, channels, 3, padding=1, bias=False), hidden)
        self.down = _film(Conv2d(channels, wide, 4, 2, 1, bias=False), hidden)
        self.join = _film(Conv2d(wide + self.maps, wide, 3, padding=1, bias=False), hidden)
        self.refine = _film(Conv2d(wide, wide, 3, padding=1, bias=False), hidden)
        self.up = _film(ConvTranspose2d(wide, channels, 4, 2, 1, bias=False), hidden)
        self.merge = _film(Conv2d(wide, channels, 3, padding=1, bias=False), hidden)
        self.right = _film(Conv2d(channels, channels, 3, padding=1, bias=False), hidden)
        self.leave = ConvTranspose2d(channels, channels // 2, 4, 2, 1)
        self.pixels = Conv2d(channels // 2 + colours, colours, 3, padding=1)
        self.deeper = nn.ModuleList(_Deeper(wide, hidden) for _ in range(times - 2))
        self.attend = SelfAttention(wide, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        h = self.mix(torch.cat([waves(t), c], 1))
        maps = c[:, : self.maps * self.low**2].unflatten(1, (self.maps, self.low, self.low))
        half = self.enter(x, h)
        half = half + self.left(half, h)
        low, seen = self.down(half, h), []
        levels = cast(Sequence[_Deeper], self.deeper)
        for level in levels:
            seen.append(low)
            low = level.down(low, h)
        low = self.join(torch.cat([low, maps], 1), h)
        low = self.attend(low + self.refine(low, h))
        for level in reversed(levels):
            low = level.merge(torch.cat([level.up(low, h), seen.pop()], 1), h)
        out = self.merge(torch.cat([self.up(low, h), half], 1), h)
        out = self.leave(out + self.right(out, h))
        return _linear(t)[:, None, None, None] * x + self.pixels(torch.cat([F.silu(out), x], 1))


class _Deeper(nn.Module):
    """The layers of a further halving: down, up again, and together with what was there before it."""

    def __init__(self, wide: int, hidden: int) -> None:
        super().__init__()
        self.down = _film(Conv2d(wide, wide, 4, 2, 1, bias=False), hidden)
        self.up = _film(ConvTranspose2d(wide, wide, 4, 2, 1, bias=False), hidden)
        self.merge = _film(Conv2d(2 * wide, wide, 3, padding=1, bias=False), hidden)


def _film(conv: Conv2d | ConvTranspose2d, hidden: int) -> Film:
    # Groups of 8 channels or more: a norm of a single number would be zero.
    return Film(conv, hidden, math.gcd(8, max(1, conv.out_channels // 8)))


WAVES = 8


def waves(t: Tensor) -> Tensor:
    """Return cos(pi k t) and sin(pi k t), k = 1 ... 8, for times t (B,): (B, 16)."""
    angles = math.pi * t[:, None] * torch.arange(1, WAVES + 1, dtype=t.dtype, device=t.device)
    return torch.cat([angles.cos(), angles.sin()], 1)


def _linear(t: Tensor, variance: float = 0.25) -> Tensor:
    """Return s(t), the regression of x_1 - x_0 on x_t for x_1 ~ N(0, variance)."""
    return (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2)


def _dequantise(x: Tensor, key: Tensor) -> Tensor:
    """Map pixels of 256 levels in [0, 1] to continuous ones in (-1, 1), spread over their level."""
    return (255 * x + rng.uniform(key, tuple(x.shape), x.dtype)) / 128 - 1


def _check(channels: int, dropout: float, guidance: float, heads: int) -> None:
    if heads and 2 * channels % heads:
        raise MetagenError(f"model.heads={heads}: expected 0 or a divisor of 2 model.channels={2 * channels}")
    if guidance != 1 and not dropout:
        raise MetagenError(
            f"model.guidance={guidance} needs a null row that was trained: set model.context_dropout=0.1, "
            f"or model.guidance=1"
        )
