"""A convolutional variational autoencoder that is conditioned on the class through a table."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen import rng
from metagen.episode import Params, Shots
from metagen.errors import MetagenError
from metagen.models.base import Generator


class VAE(Generator):
    """p(x | c) = E_{z ~ p(z | c)} prod_i Bernoulli(x_i; d_i(z, c)), with c a row of ``context``.

    A network q(z | x, c) bounds the likelihood of an image from below (Kingma & Welling: *Auto-encoding
    variational Bayes*, ICLR 2014), and grey pixels count as soft targets:

        ELBO(x, c) = E_{z ~ q(z | x, c)} [sum_i x_i log d_i + (1 - x_i) log(1 - d_i)] - KL(q(z | x, c) || p(z | c))

    The prior p(z | c) = N(mu(c), diag sigma(c)^2) and the context of a support set, a mean over its images,
    follow the Neural Statistician (Edwards & Storkey, ICLR 2017), with a point estimate of c.
    All nets run under nested ``torch.func`` transforms: no batch statistics, no in-place operations.
    """

    head: ClassVar[tuple[str, ...]] = ("context", "pixels.*")
    encoder: ClassVar[tuple[str, ...]] = ("set_encoder.*",)

    def __init__(self, context: int = 128, latent: int = 32, channels: int = 32, hidden: int = 256) -> None:
        """Build the model for images of 1 x 28 x 28.

        Args:
            context: length D of a row of the table.
            latent: length of z.
            channels: feature maps at 14 x 14; twice as many at 7 x 7.
            hidden: units between the images and z, and between z and the images.

        Raises:
            MetagenError: an argument is not positive.
        """
        super().__init__()
        for name, value in {"context": context, "latent": latent, "channels": channels, "hidden": hidden}.items():
            if value < 1:
                raise MetagenError(f"VAE needs {name} >= 1 but got {value}")
        self.latent = latent
        self.maps = 2 * channels
        self.context = nn.Parameter(torch.zeros(1, context))
        self.set_encoder = nn.Sequential(_trunk(channels), nn.Linear(49 * self.maps, context))
        self.image_encoder = nn.Sequential(_trunk(channels), nn.Linear(49 * self.maps, hidden))
        self.posterior = nn.Sequential(
            nn.Linear(hidden + context, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent)
        )
        self.prior = nn.Sequential(nn.Linear(context, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(
            nn.Linear(latent + context, hidden), nn.SiLU(), nn.Linear(hidden, 49 * self.maps), nn.SiLU()
        )
        self.upsample = nn.ConvTranspose2d(self.maps, channels, 4, 2, 1)
        self.film = nn.Linear(context, 2 * channels)
        self.pixels = nn.ConvTranspose2d(channels, 1, 4, 2, 1)

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean over images of -ELBO with one sample of z each, in nats per image."""
        x, c = shots.x.flatten(0, 1), self._rows(shots.y)
        noise = rng.normal(shots.key, (x.shape[0], self.latent), x.dtype)
        (mean, log_std), (prior_mean, prior_log_std) = self._posterior(x, c), self._prior(c)
        logits = self._decode(mean + log_std.exp() * noise, c)
        gap = (mean - prior_mean) * (-prior_log_std).exp()
        kl = prior_log_std - log_std + (((log_std - prior_log_std) * 2).exp() + gap**2 - 1) / 2
        return (kl.sum(-1) - _log_bernoulli(x, logits)).mean()

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Return the pixel means d(z, c_y) of z ~ p(z | c_y) for class indices ``y`` (B,): (B, 1, 28, 28)."""
        c = self._rows(y)
        mean, log_std = self._prior(c)
        return self._decode(mean + log_std.exp() * rng.normal(key, mean.shape, mean.dtype), c).sigmoid()

    def log_likelihood(self, shots: Shots, importance_samples: int) -> Tensor:
        """Return a lower bound of log p(x | c) per image, (N, K) nats (Burda et al., ICLR 2016).

        log 1/S sum_s p(x | z_s, c) p(z_s | c) / q(z_s | x, c) with z_s ~ q(z | x, c): the ELBO in
        expectation at S = 1 and exact in the limit.
        """
        x, c = shots.x.flatten(0, 1), self._rows(shots.y)
        (mean, log_std), (prior_mean, prior_log_std) = self._posterior(x, c), self._prior(c)
        weights = []
        for s in range(importance_samples):
            noise = rng.normal(rng.fold_in(shots.key, s), (x.shape[0], self.latent), x.dtype)
            z = mean + log_std.exp() * noise
            prior_noise = (z - prior_mean) * (-prior_log_std).exp()
            log_ratio = (noise**2 - prior_noise**2) / 2 + log_std - prior_log_std
            weights.append(_log_bernoulli(x, self._decode(z, c)) + log_ratio.sum(-1))
        bound = torch.stack(weights).logsumexp(0) - math.log(importance_samples)
        return bound.reshape(shots.y.shape)

    def encode(self, support: Shots) -> Params:
        """Return ``context`` (N, D): the mean over the K images of a class of their features."""
        features = self.set_encoder(support.x.flatten(0, 1) * 2 - 1)
        return {"context": features.reshape(*support.y.shape, -1).mean(1)}

    def _rows(self, y: Tensor) -> Tensor:
        return self.context[y.flatten()]

    def _posterior(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        features = F.silu(self.image_encoder(x * 2 - 1))
        return _gaussian(self.posterior(torch.cat([features, c], -1)))

    def _prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        return _gaussian(self.prior(c))

    def _decode(self, z: Tensor, c: Tensor) -> Tensor:
        maps = self.upsample(self.decoder(torch.cat([z, c], -1)).reshape(-1, self.maps, 7, 7))
        scale, shift = self.film(c)[..., None, None].chunk(2, 1)
        return self.pixels(F.silu(maps * (1 + scale) + shift))


def _trunk(channels: int) -> nn.Sequential:
    """Return a network from 1 x 28 x 28 to features of 2 channels x 7 x 7, flattened."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 4, 2, 1),
        nn.SiLU(),
        nn.Conv2d(channels, 2 * channels, 4, 2, 1),
        nn.SiLU(),
        nn.Flatten(),
    )


def _gaussian(output: Tensor) -> tuple[Tensor, Tensor]:
    """Split into mean and log standard deviation, the latter smoothly bounded to (-4, 4)."""
    mean, log_std = output.chunk(2, -1)
    return mean, 4 * (log_std / 4).tanh()


def _log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """Return sum_i x_i log d_i + (1 - x_i) log(1 - d_i) with d = sigmoid(logits), per image (B,)."""
    return (x * logits - F.softplus(logits)).flatten(1).sum(-1)
