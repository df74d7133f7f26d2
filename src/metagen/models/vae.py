"""A convolutional variational autoencoder that is conditioned on the class through a table."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from metagen.core.episode import Shots
from metagen.errors import MetagenError
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
    log_bernoulli,
    log_ratio,
    mlp,
)
from metagen.models.layers import Conv2d, ConvTranspose2d


class VAE(SetGenerator):
    """p(x | c) = E_{z ~ p(z | c)} prod_i Bernoulli(x_i; d_i(z, c)), with c a row of ``context``.

    A network q(z | x, c) bounds the likelihood of an image from below (Kingma & Welling: *Auto-encoding
    variational Bayes*, ICLR 2014), and grey pixels count as soft targets:

        ELBO(x, c) = E_{z ~ q} [sum_i x_i log d_i + (1 - x_i) log(1 - d_i)] - KL(q(z | x, c) || p(z | c))

    The prior p(z | c) = N(mu(c), diag sigma(c)^2) and the context of a support set, one row for its images,
    follow the Neural Statistician (Edwards & Storkey, ICLR 2017), with a point estimate of c.
    A row of D = 49 ``maps`` + ``features`` numbers is a stack of 7 x 7 maps, which the decoder reads in
    place, and a vector. All nets run under nested ``torch.func`` transforms: no batch statistics, no
    in-place operations, and only norms whose second derivative is exact there.
    """

    head: ClassVar[tuple[str, ...]] = ("context", "decoder.pixels.*")
    likelihood = "bound"

    def __init__(
        self,
        maps: int = 12,
        features: int = 64,
        latent: int = 32,
        channels: int = 32,
        hidden: int = 256,
        aggregate: Callable[[int], nn.Module] = Mean,
    ) -> None:
        """Build the model for images of 1 x 28 x 28.

        Args:
            maps: 7 x 7 maps in a row of the table.
            features: length of the rest of a row.
            latent: length of z.
            channels: width of the convolutions at 14 x 14; twice as wide at 7 x 7.
            hidden: width of the fully connected layers.
            aggregate: makes, for rows of D numbers, what maps those of K images (N, K, D) to one (N, D).

        Raises:
            MetagenError: an argument is not positive.
        """
        super().__init__()
        sizes = {"maps": maps, "features": features, "latent": latent, "channels": channels, "hidden": hidden}
        for name, value in sizes.items():
            if value < 1:
                raise MetagenError(f"VAE needs {name} >= 1 but got {value}")
        self.latent = latent
        row = 49 * maps + features
        self.context = nn.Parameter(torch.zeros(1, row))
        self.set_encoder = SetEncoder(28, maps, features, channels)
        self.aggregate = aggregate(row)
        self.image_encoder = nn.Sequential(down(channels), flat(28, channels, hidden), nn.SiLU())
        self.posterior = mlp(hidden + row, hidden, 2 * latent)
        self.prior = mlp(row, hidden, 2 * latent)
        self.decoder = _Decoder(maps, row, latent, channels, hidden)

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean over images of -ELBO with one sample of z each, in nats per image."""
        x, c = shots.x.flatten(0, 1), self._rows(shots.y)
        q, p = self._posterior(x, c), gaussian(self.prior(c))
        z = q[0] + q[1].exp() * rng.normal(shots.key, (x.shape[0], self.latent), x.dtype)
        return (divergence(q, p).sum(-1) - log_bernoulli(x, self.decoder(z, c))).mean()

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Return the pixel means d(z, c_y), z ~ p(z | c_y), of class indices ``y`` (B,): (B, 1, 28, 28)."""
        c = self._rows(y)
        mean, log_std = gaussian(self.prior(c))
        z = mean + log_std.exp() * rng.normal(key, (y.shape[0], self.latent), mean.dtype)
        return self.decoder(z, c).sigmoid()

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
            log_weights.append(log_ratio(z, noise, q, p).sum(-1) + log_bernoulli(x, self.decoder(z, c)))
        bound = torch.stack(log_weights).logsumexp(0) - math.log(importance_samples)
        return bound.reshape(shots.y.shape)

    def _rows(self, y: Tensor) -> Tensor:
        return self.context[y.flatten()]

    def _posterior(self, x: Tensor, c: Tensor) -> Gaussian:
        return gaussian(self.posterior(torch.cat([self.image_encoder(x), c], -1)))


class _Decoder(nn.Module):
    """Map z (B, Z) and rows c (B, D) to the logits of the pixels (B, 1, 28, 28)."""

    def __init__(self, maps: int, row: int, latent: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(latent + row, hidden), nn.SiLU())
        self.drawn = nn.Linear(hidden, 49 * channels // 2)
        self.enter = _film(Conv2d(maps + channels // 2, 2 * channels, 3, padding=1, bias=False), hidden)
        self.refine = _film(Conv2d(2 * channels, 2 * channels, 3, padding=1, bias=False), hidden)
        self.up = _film(ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False), hidden)
        self.pixels = ConvTranspose2d(channels, 1, 4, 2, 1)
        self.maps = maps

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        h = self.mix(torch.cat([z, c], -1))
        x = torch.cat([c[:, : 49 * self.maps], self.drawn(h)], -1).reshape(c.shape[0], -1, 7, 7)
        x = self.enter(x, h)
        x = x + self.refine(x, h)
        return self.pixels(self.up(x, h))


def _film(conv: Conv2d | ConvTranspose2d, hidden: int) -> Film:
    return Film(conv, hidden, math.gcd(8, conv.out_channels))
