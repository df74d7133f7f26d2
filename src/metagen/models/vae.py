"""A convolutional variational autoencoder that is conditioned on the class through a table."""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from metagen.core.episode import Shots
from metagen.functional import rng
from metagen.models.aggregate import Mean
from metagen.models.blocks import (
    Film,
    Gaussian,
    SetEncoder,
    SetGenerator,
    divergence,
    down,
    flat,
    gaussian,
    log_ratio,
    mlp,
    ups,
)
from metagen.models.layers import Conv2d, ConvTranspose2d
from metagen.models.pixel_likelihood import pixel_likelihood
from metagen.models.sizes import halvings
from metagen.ranges import WIDE, Colours, SideBy4, Width, checked


class VAE(SetGenerator):
    """p(x | c) = E_{z ~ p(z | c)} prod_i p(x_i; d_i(z, c)), with c a row of ``context``.

    A network q(z | x, c) bounds the likelihood of an image from below (Kingma & Welling: *Auto-encoding
    variational Bayes*, ICLR 2014):

        ELBO(x, c) = E_{z ~ q} [sum_i log p(x_i; d_i(z, c))] - KL(q(z | x, c) || p(z | c))

    A pixel is Bernoulli, with grey ones as soft targets, or a discretised logistic of 256 levels
    (:mod:`metagen.models.pixel_likelihood`).

    The prior p(z | c) = N(mu(c), diag sigma(c)^2) and the context of a support set, one row for its images,
    follow the Neural Statistician (Edwards & Storkey, ICLR 2017), with a point estimate of c.
    A row of D = S^2 ``maps`` + ``features`` numbers is a stack of S x S maps, which the decoder reads in
    place, and a vector; S is 7 for images of 28 x 28 (:func:`metagen.models.sizes.halvings`).
    All nets run under nested ``torch.func`` transforms: no batch statistics, no
    in-place operations, and only norms whose second derivative is exact there.
    """

    head: ClassVar[tuple[str, ...]] = ("context", "decoder.pixels.*")
    likelihood = "bound"

    @checked
    def __init__(
        self,
        maps: Width = 12,
        features: Width = 64,
        latent: Width = 32,
        channels: Annotated[int, Ge(2), Le(WIDE)] = 32,
        hidden: Width = 256,
        aggregate: Callable[[int], nn.Module] = Mean,
        size: SideBy4 = 28,
        colours: Colours = 1,
        pixels: Literal["bernoulli", "logistic"] | None = None,
    ) -> None:
        """Build the model for images of ``colours`` x ``size`` x ``size``.

        Args:
            maps: maps of the coarsest resolution in a row of the table.
            features: length of the rest of a row.
            latent: length of z.
            channels: width of the convolutions at half the resolution; twice as wide below.
            hidden: width of the fully connected layers.
            aggregate: makes, for rows of D numbers, what maps those of K images (N, K, D) to one (N, D).
            size: height and width of an image, a multiple of 4.
            colours: channels of an image, 1 or 3.
            pixels: their likelihood; None: ``bernoulli`` for grey images, ``logistic`` for colour.

        Raises:
            MetagenError: an argument is not positive, or ``size`` or ``colours`` does not fit.
        """
        super().__init__()
        self.latent, self.colours, self.pixels = latent, colours, pixel_likelihood(pixels, colours)
        times = halvings(size, "VAE")
        side = size >> times
        row = side**2 * maps + features
        self.context = nn.Parameter(torch.zeros(1, row))
        self.set_encoder = SetEncoder(size, maps, features, channels, colours, times)
        self.aggregate = aggregate(row)
        self.image_encoder = nn.Sequential(
            down(channels, colours, times), flat(side, channels, hidden), nn.SiLU()
        )
        self.posterior = mlp(hidden + row, hidden, 2 * latent)
        self.prior = mlp(row, hidden, 2 * latent)
        self.decoder = _Decoder(self.pixels.maps, (maps, side), row, latent, channels, hidden, times)

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean over images of -ELBO with one sample of z each, in nats per image."""
        x, c = shots.x.flatten(0, 1), self._rows(shots.y)
        q, p = self._posterior(x, c), gaussian(self.prior(c))
        z = q[0] + q[1].exp() * rng.normal(shots.key, (x.shape[0], self.latent), x.dtype)
        return (divergence(q, p).sum(-1) - self.pixels.log_prob(x, self.decoder(z, c))).mean()

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Return the pixel means d(z, c_y), z ~ p(z | c_y), of class indices ``y`` (B,): (B, C, H, W)."""
        c = self._rows(y)
        mean, log_std = gaussian(self.prior(c))
        z = mean + log_std.exp() * rng.normal(key, (y.shape[0], self.latent), mean.dtype)
        return self.pixels.mean(self.decoder(z, c))

    def log_likelihood(self, shots: Shots, importance_samples: int) -> Tensor:
        """Return a lower bound of log p(x | c) per image, (N, K) nats (Burda et al., ICLR 2016).

        log 1/S sum_s p(x | z_s, c) p(z_s | c) / q(z_s | x, c) with z_s ~ q(z | x, c): the ELBO in
        expectation at S = 1 and exact in the limit.
        """
        x, c = shots.x.flatten(0, 1), self._rows(shots.y)
        q, p = self._posterior(x, c), gaussian(self.prior(c))
        log_weights = []
        for s in range(importance_samples):
            noise = rng.normal(rng.fold_in(shots.key, s), (x.shape[0], self.latent), x.dtype)
            z = q[0] + q[1].exp() * noise
            log_weights.append(
                log_ratio(z, noise, q, p).sum(-1) + self.pixels.log_prob(x, self.decoder(z, c))
            )
        bound = torch.stack(log_weights).logsumexp(0) - math.log(importance_samples)
        return bound.reshape(shots.y.shape)

    def _rows(self, y: Tensor) -> Tensor:
        return self.context[y.flatten()]

    def _posterior(self, x: Tensor, c: Tensor) -> Gaussian:
        return gaussian(self.posterior(torch.cat([self.image_encoder(x), c], -1)))


class _Decoder(nn.Module):
    """Map z (B, Z) and rows c (B, D) to numbers for the pixels (B, ``out``, H, W)."""

    def __init__(
        self, out: int, maps: tuple[int, int], row: int, latent: int, channels: int, hidden: int, times: int
    ) -> None:
        """``maps``: how many of a row, and their side, which doubled ``times`` over is the image's."""
        super().__init__()
        count, side = maps
        self.mix = nn.Sequential(nn.Linear(latent + row, hidden), nn.SiLU())
        self.drawn = nn.Linear(hidden, side**2 * (channels // 2))
        self.enter = _film(Conv2d(count + channels // 2, 2 * channels, 3, padding=1, bias=False), hidden)
        self.refine = _film(Conv2d(2 * channels, 2 * channels, 3, padding=1, bias=False), hidden)
        self.up = _film(ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False), hidden)
        self.pixels = ConvTranspose2d(channels, out, 4, 2, 1)
        self.ups = ups(times - 2, 2 * channels, hidden)
        self.maps, self.side = count, side

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        h = self.mix(torch.cat([z, c], -1))
        given = c[:, : self.side**2 * self.maps]
        x = torch.cat([given, self.drawn(h)], -1).reshape(c.shape[0], -1, self.side, self.side)
        x = self.enter(x, h)
        x = x + self.refine(x, h)
        for up in self.ups:
            x = up(x, h)
        return self.pixels(self.up(x, h))


def _film(conv: Conv2d | ConvTranspose2d, hidden: int) -> Film:
    return Film(conv, hidden, math.gcd(8, conv.out_channels))
