"""A variational autoencoder with several layers of z, each with a context of its own from attention."""

import math
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from metagen.core.episode import Params, Shots
from metagen.core.model import Generator
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.blocks import Film, Gaussian, divergence, down, flat, gaussian, log_ratio, ups
from metagen.models.layers import Conv2d, ConvTranspose2d
from metagen.models.pixel_likelihood import pixel_likelihood
from metagen.models.sizes import halvings
from metagen.ranges import Colours, SideBy4, Width, checked


class Draw(NamedTuple):
    """One layer of z, (B, ...): its sample z = q's mean + q's standard deviation * noise, and q and p."""

    z: Tensor
    noise: Tensor
    q: Gaussian
    p: Gaussian


class HierarchicalVAE(Generator):
    r"""p(x | c) = E prod_i p(x_i; d_i(z, c)) over z = (z_L, ..., z_0), drawn from the top down.

    .. math:: p(z \mid c) = p(z_L \mid c_L) \prod_{l < L} p(z_l \mid z_{>l}, c_{\geq l}), \quad
              q(z \mid x, c) = q(z_L \mid x, c_L) \prod_{l < L} q(z_l \mid z_{>l}, x, c_{\geq l})

    with a vector z_L at the top and maps of the coarsest resolution below, 7 x 7 for images of 28 x 28, all
    Gaussian. Mean and scale of q are offsets to those
    of p (Vahdat & Kautz: *NVAE*, NeurIPS 2020), and both walk the same net from the top down (Child: *Very
    deep VAEs*, ICLR 2021). Pixels have the likelihoods of :class:`metagen.models.vae.VAE`.

    The context of a class, a row of D = ``features`` + ``levels`` S^2 ``maps`` numbers, has a part for every
    layer. A support set writes it from the top down, too: each layer weighs the images of a class by
    attention, whose queries are learned and depend on the context of the layer above. This is the context
    aggregation of Giannone & Winther: *SCHA-VAE*, ICML 2022, after Edwards & Storkey: *Towards a Neural
    Statistician*, ICLR 2017, and Hewitt et al.: *The Variational Homoencoder*, UAI 2018, but with a point
    estimate of the context in place of their distribution, so that gradient steps can move it, too.
    All nets run under nested ``torch.func`` transforms.
    """

    head: ClassVar[tuple[str, ...]] = ("context", "decoder.pixels.*")
    likelihood = "bound"
    encoder: ClassVar[tuple[str, ...]] = ("set_encoder.*",)

    @checked
    def __init__(
        self,
        levels: Annotated[int, Ge(1), Le(100)] = 2,
        maps: Width = 8,
        features: Width = 64,
        latent: Width = 16,
        latent_maps: Width = 4,
        channels: Width = 32,
        hidden: Width = 256,
        heads: Width = 4,
        size: SideBy4 = 28,
        colours: Colours = 1,
        pixels: Literal["bernoulli", "logistic"] | None = None,
    ) -> None:
        """Build the model for images of ``colours`` x ``size`` x ``size``.

        Args:
            levels: L, layers of z that are maps, below the one that is a vector.
            maps: maps of context for each of them.
            features: length of the context of the vector.
            latent: length of the vector z_L.
            latent_maps: maps in each other layer of z.
            channels: width of the convolutions at half the resolution; twice as wide below.
            hidden: width of the fully connected layers.
            heads: of the attention, each with its share of ``maps`` and ``features``.
            size: height and width of an image, a multiple of 4.
            colours: channels of an image, 1 or 3.
            pixels: their likelihood; None: ``bernoulli`` for grey images, ``logistic`` for colour.

        Raises:
            MetagenError: an argument is not positive, or ``heads`` no common divisor.
        """
        super().__init__()
        if maps % heads or features % heads:
            raise MetagenError(
                f"model.heads={heads}: expected a common divisor of model.maps={maps} and "
                f"model.features={features}"
            )
        self.colours, self.pixels = colours, pixel_likelihood(pixels, colours)
        times = halvings(size, "HierarchicalVAE")
        self.side = size >> times
        self.parts = [features] + [maps * self.side**2] * levels
        self.context = nn.Parameter(torch.zeros(1, sum(self.parts)))
        self.set_encoder = _SetEncoder(
            down(channels, colours, times),
            flat(self.side, channels, features),
            levels,
            maps,
            features,
            channels,
            heads,
        )
        self.image_encoder = down(channels, colours, times)
        self.top = _Top(features, latent, channels, hidden, self.side)
        self.levels = nn.ModuleList(_Level(maps, latent_maps, 2 * channels, hidden) for _ in range(levels))
        self.decoder = _Decoder(self.pixels.maps, channels, hidden, times)

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean over images of -ELBO with one sample of z each, in nats per image."""
        x = shots.x.flatten(0, 1)
        output, draws = self._descend(shots.y, shots.key, x)
        kl = [divergence(draw.q, draw.p).flatten(1).sum(1) for draw in draws]
        return (torch.stack(kl).sum(0) - self.pixels.log_prob(x, output)).mean()

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Return the pixel means d(z, c_y), z ~ p(z | c_y), of class indices ``y`` (B,): (B, C, H, W)."""
        return self.pixels.mean(self._descend(y, key)[0])

    def log_likelihood(self, shots: Shots, importance_samples: int) -> Tensor:
        """Return a lower bound of log p(x | c) per image, (N, K) nats (Burda et al., ICLR 2016).

        log 1/S sum_s p(x | z_s, c) p(z_s | c) / q(z_s | x, c) with z_s ~ q(z | x, c): the ELBO in
        expectation at S = 1 and exact in the limit.
        """
        x, log_weights = shots.x.flatten(0, 1), []
        for s in range(importance_samples):
            output, draws = self._descend(shots.y, rng.fold_in(shots.key, s), x)
            terms = [log_ratio(*draw).flatten(1).sum(1) for draw in draws]
            log_weights.append(torch.stack(terms).sum(0) + self.pixels.log_prob(x, output))
        bound = torch.stack(log_weights).logsumexp(0) - math.log(importance_samples)
        return bound.reshape(shots.y.shape)

    def encode(self, support: Shots) -> Params:
        """Return ``context`` (N, D), whatever the number and the order of a class's images."""
        return {"context": torch.cat([part.flatten(1) for part in self.set_encoder(support.x)], 1)}

    def _descend(self, y: Tensor, key: Tensor, x: Tensor | None = None) -> tuple[Tensor, list[Draw]]:
        """Draw z from q(z | x, c), or from p(z | c) without images: numbers for pixels, layers of z."""
        top, *rest = self.context[y.flatten()].split(self.parts, 1)
        seen = None if x is None else self.image_encoder(x)
        state, h, draw = self.top(top, seen, rng.fold_in(key, 0))
        draws = [draw]
        for i, (level, c) in enumerate(zip(self.levels, rest, strict=True)):
            c = c.unflatten(1, (-1, self.side, self.side))
            state, draw = level(state, h, c, seen, rng.fold_in(key, i + 1))
            draws.append(draw)
        return self.decoder(state, h), draws


class _Top(nn.Module):
    """z_L and what all layers below start with: maps (B, 2 channels, S, S) and a vector h (B, hidden)."""

    def __init__(self, features: int, latent: int, channels: int, hidden: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.prior = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent))
        self.seen = nn.Sequential(flat(side, channels, hidden), nn.SiLU())
        self.posterior = nn.Sequential(
            nn.Linear(hidden + features, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent)
        )
        self.mix = nn.Sequential(nn.Linear(latent + features, hidden), nn.SiLU())
        self.drawn = nn.Linear(hidden, 2 * channels * side**2)

    def forward(self, c: Tensor, seen: Tensor | None, key: Tensor) -> tuple[Tensor, Tensor, Draw]:
        p = self.prior(c)
        offset = None if seen is None else self.posterior(torch.cat([self.seen(seen), c], 1))
        draw = _draw(p, offset, key)
        h = self.mix(torch.cat([draw.z, c], 1))
        return self.drawn(h).unflatten(1, (-1, self.side, self.side)), h, draw


class _Level(nn.Module):
    """One layer z_l of maps: p from the state above and c_l, q from the image, too; then the next state."""

    def __init__(self, maps: int, latent: int, wide: int, hidden: int) -> None:
        super().__init__()
        self.enter = _film(Conv2d(wide + maps, wide, 3, padding=1, bias=False), hidden)
        self.prior = Conv2d(wide, 2 * latent, 1)
        self.compare = _film(Conv2d(2 * wide, wide, 3, padding=1, bias=False), hidden)
        self.posterior = Conv2d(wide, 2 * latent, 1)
        self.leave = _film(Conv2d(wide + latent, wide, 3, padding=1, bias=False), hidden)

    def forward(
        self, state: Tensor, h: Tensor, c: Tensor, seen: Tensor | None, key: Tensor
    ) -> tuple[Tensor, Draw]:
        u = self.enter(torch.cat([state, c], 1), h)
        offset = None if seen is None else self.posterior(self.compare(torch.cat([u, seen], 1), h))
        draw = _draw(self.prior(u), offset, key)
        return u + self.leave(torch.cat([u, draw.z], 1), h), draw


class _Decoder(nn.Module):
    """Map the last state (B, 2 channels, S, S) to numbers for the pixels (B, ``out``, H, W)."""

    def __init__(self, out: int, channels: int, hidden: int, times: int) -> None:
        super().__init__()
        self.up = _film(ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False), hidden)
        self.pixels = ConvTranspose2d(channels, out, 4, 2, 1)
        self.ups = ups(times - 2, 2 * channels, hidden)

    def forward(self, state: Tensor, h: Tensor) -> Tensor:
        for up in self.ups:
            state = up(state, h)
        return self.pixels(self.up(state, h))


class _SetEncoder(nn.Module):
    """Map the images of N classes (N, K, C, H, W) to the contexts of all layers, the vector's first."""

    def __init__(
        self,
        down: nn.Module,
        vector: nn.Module,
        levels: int,
        maps: int,
        features: int,
        channels: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.down, self.features = down, vector
        self.maps = Conv2d(2 * channels, levels * maps, 1)
        above = [features, features] + [maps] * (levels - 1)
        rows = [features] + [maps] * levels
        self.aggregates = nn.ModuleList(_Attention(*pair, heads) for pair in zip(above, rows, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        seen = self.down(x.flatten(0, 1))
        top = self.features(seen)[..., None, None].unflatten(0, x.shape[:2])
        maps = self.maps(seen).unflatten(0, x.shape[:2]).chunk(len(self.aggregates) - 1, 2)
        contexts = [self.aggregates[0](top, top.mean(1))]
        for aggregate, rows in zip(list(self.aggregates)[1:], maps, strict=True):
            contexts.append(aggregate(rows, contexts[-1]))
        return contexts


class _Attention(nn.Module):
    r"""c^h = sum_k a^h_k r^h_k at each place, a^h = softmax_k(q^h . k(r_k) / sqrt(d)), q^h = b^h + W^h u.

    u is the context of the layer above. The learned queries start at zero: then the context is the mean.
    """

    def __init__(self, above: int, row: int, heads: int, size: int = 16) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.query, self.key = Conv2d(above, heads * size, 1), Conv2d(row, heads * size, 1)
        nn.init.zeros_(self.query.weight)
        if self.query.bias is not None:
            nn.init.zeros_(self.query.bias)

    def forward(self, rows: Tensor, above: Tensor) -> Tensor:
        """Map rows (N, K, M, H, W), given maps (N, A, H or 1, W or 1), to (N, M, H, W)."""
        query = self.query(above).unflatten(1, (1, self.heads, self.size))
        key = self.key(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        fit = (query * key.unflatten(2, (self.heads, self.size))).sum(3) / math.sqrt(self.size)
        parts = rows.unflatten(2, (self.heads, -1))
        return (fit.softmax(1)[:, :, :, None] * parts).sum(1).flatten(1, 2)


def _draw(p: Tensor, offset: Tensor | None, key: Tensor) -> Draw:
    """Draw z from q, of which ``offset`` says how it differs from p; None: not at all."""
    prior = gaussian(_bounded(p), 1)
    q = prior if offset is None else gaussian(_bounded(p + offset), 1)
    noise = rng.normal(key, tuple(q[0].shape), p.dtype)
    return Draw(q[0] + q[1].exp() * noise, noise, q, prior)


def _film(conv: Conv2d | ConvTranspose2d, hidden: int) -> Film:
    return Film(conv, hidden, math.gcd(8, conv.out_channels))


def _bounded(x: Tensor) -> Tensor:
    """Keep a number smoothly within (-10, 10): one large step must not set off the layers below."""
    return 10 * (x / 10).tanh()
