"""A Wasserstein GAN whose two players are trained by the gradient of one scalar."""

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor, nn
from torch.func import functional_call

from metagen.core.episode import Params, Shots
from metagen.core.model import Generator
from metagen.functional import rng
from metagen.functional.vectorize import gradient
from metagen.models.layers import Conv2d, ConvTranspose2d, GroupNorm
from metagen.models.sizes import halvings
from metagen.ranges import WIDE, Colours, NonNegativeFloat, SideBy4, Width, checked


class GAN(Generator):
    r"""x = G(z, c), z ~ N(0, I), against a critic D(x, c), with c a row of ``context``.

    Wasserstein GAN with gradient penalty (Gulrajani et al.: *Improved Training of Wasserstein GANs*,
    NeurIPS 2017), conditioned on the class as by Miyato and Koyama (*cGANs with Projection
    Discriminator*, ICLR 2018). Meta-trained by Reptile it is FIGR (Clouatre and Demers: *FIGR: Few-shot
    Image Generation with Reptile*, 2019).

    .. math:: L_D = E\,D(G(z)) - E\,D(x) + \lambda E (\|\nabla_{\hat x} D(\hat x)\|_2 - 1)^2, \quad
              L_G = -E\,D(G(z)), \quad \hat x = x + u (G(z) - x), \; u \sim U(0, 1)

    Each player owns its parameters and half of a row: ``generator.*`` and the first half move by grad L_G,
    ``critic.*`` and the second half by grad L_D, both at the same time (Mescheder et al.: *The Numerics of
    GANs*, NeurIPS 2017). This field is the gradient of no scalar function, so :meth:`loss` holds the other
    player constant. A learner that differentiates through it, such as ``learner=maml``, therefore sees how
    a player's gradient depends on that player, not on the other one; first-order learners lose nothing.

    There is no likelihood, so :meth:`log_likelihood` is not there, and no encoder.
    """

    head: ClassVar[tuple[str, ...]] = ("context", "generator.pixels.*", "critic.score.*")
    loss_unit = "critic's score"
    surrogate: ClassVar[bool] = True

    @checked
    def __init__(
        self,
        size: SideBy4 = 28,
        features: Annotated[int, Ge(2), Le(WIDE), MultipleOf(2)] = 32,
        latent: Width = 32,
        channels: Width = 32,
        hidden: Width = 128,
        gp_weight: NonNegativeFloat = 10.0,
        colours: Colours = 1,
    ) -> None:
        """Build both nets for images of ``colours`` x ``size`` x ``size``.

        Args:
            size: height and width of the images, a multiple of 4.
            features: length of a row of the table, even.
            latent: length of z.
            channels: width of the convolutions at full size; more at smaller ones.
            hidden: width of the critic's last layer.
            gp_weight: lambda, the weight of the gradient penalty.
            colours: channels of the images, 1 or 3.

        Raises:
            MetagenError: an argument is out of range.
        """
        super().__init__()
        self.latent, self.gp_weight, self.colours = latent, gp_weight, colours
        times = halvings(size, "GAN")
        self.context = nn.Parameter(torch.zeros(1, features))
        self.generator = _Generator(latent + features // 2, channels, size, colours, times)
        self.critic = _Critic(features // 2, channels, hidden, size, colours, times)

    def loss(self, shots: Shots) -> Tensor:
        """Return L_D, a scalar without unit, whose gradient is grad L_D for the critic, grad L_G for G.

        The value tells how far the critic sees the samples from the images, -W_1 as L_D falls to its
        minimum; it says nothing of a generator that is not measured against the same critic.
        """
        x, (mine, theirs) = shots.x.flatten(0, 1), self._rows(shots.y.flatten())
        fake = self.generator(self._noise(shots.key, x), mine)
        critic: Params = dict(self.critic.named_parameters())
        frozen = {name: p.detach() for name, p in critic.items()}
        loss_g = -self._score(fake, frozen, theirs.detach()).mean()
        return self._critic_loss(x, fake.detach(), critic, theirs, shots.key) + loss_g - loss_g.detach()

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Return G(z, c_y), z ~ N(0, I), of class indices ``y`` (B,): (B, C, size, size)."""
        rows, _ = self._rows(y)
        return self.generator(self._noise(key, rows), rows)

    def _noise(self, key: Tensor, like: Tensor) -> Tensor:
        return rng.normal(key, (like.shape[0], self.latent), like.dtype)

    def _rows(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the generator and what the critic reads of the class, (B, D / 2) each."""
        mine, theirs = self.context[y].chunk(2, -1)
        return mine, theirs

    def _critic_loss(self, x: Tensor, fake: Tensor, critic: Params, c: Tensor, key: Tensor) -> Tensor:
        """Return L_D of images and as many samples, (B, C, H, W) each, under the parameters ``critic``."""
        real, drawn = self._score(torch.cat([x, fake]), critic, torch.cat([c, c])).chunk(2)
        u = rng.uniform(rng.fold_in(key, 0), (x.shape[0], 1, 1, 1), x.dtype)
        slope = gradient(self._total_score, x + u * (fake - x), critic, c)
        # The root has no derivative at 0.
        norm = (slope.flatten(1).square().sum(-1) + 1e-12).sqrt()
        return drawn.mean() - real.mean() + self.gp_weight * (norm - 1).square().mean()

    def _score(self, x: Tensor, critic: Params, c: Tensor) -> Tensor:
        return functional_call(self.critic, critic, (x, c))

    def _total_score(self, x: Tensor, critic: Params, c: Tensor) -> Tensor:
        # The critic looks at every image by itself, so the gradient of the sum is that of each score.
        return self._score(x, critic, c).sum()


class _Generator(nn.Module):
    """Map z and a row of the class, (B, Z) and (B, E), to pixels in [0, 1], (B, C, H, W)."""

    def __init__(self, inputs: int, channels: int, size: int, colours: int, times: int) -> None:
        super().__init__()
        side = size >> times
        self.enter = nn.Linear(inputs, 4 * channels * side**2)
        self.body = nn.Sequential(
            *(_Up(4 * channels, 4 * channels) for _ in range(times - 2)),
            _Up(4 * channels, 2 * channels),
            _Up(2 * channels, channels),
        )
        self.pixels = Conv2d(channels, colours, 3, padding=1)
        self.side = side

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        x = self.enter(torch.cat([z, c], -1)).reshape(z.shape[0], -1, self.side, self.side)
        return self.pixels(self.body(x)).sigmoid()


class _Up(nn.Module):
    """Twice the size, then a residual: u = SiLU(norm(up(x))), u + SiLU(norm(conv(u)))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.conv = ConvTranspose2d(inputs, outputs, 4, 2, 1), Conv2d(outputs, outputs, 3, padding=1)
        self.norm = GroupNorm(math.gcd(8, outputs))

    def forward(self, x: Tensor) -> Tensor:
        u = F.silu(self.norm(self.up(x)))
        return u + F.silu(self.norm(self.conv(u)))


class _Critic(nn.Module):
    """D(x, c) = w h(x) + <V c, h(x)>, one score (B,) for each image, without statistics of the batch."""

    def __init__(self, inputs: int, channels: int, hidden: int, size: int, colours: int, times: int) -> None:
        super().__init__()
        side = ((size >> times) + 1) // 2
        deeper = [_halve(2 * channels) for _ in range(times - 2)]
        self.body = nn.Sequential(
            Conv2d(colours, channels, 4, 2, 1),
            nn.LeakyReLU(0.2),
            Conv2d(channels, 2 * channels, 4, 2, 1),
            _LayerNorm(2 * channels),
            nn.LeakyReLU(0.2),
            *(layer for part in deeper for layer in part),
            Conv2d(2 * channels, 4 * channels, 3, 2, 1),
            _LayerNorm(4 * channels),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * channels * side**2, hidden),
            nn.LeakyReLU(0.2),
        )
        self.score = nn.Linear(hidden, 1)
        self.project = nn.Linear(inputs, hidden, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.body(x)
        return self.score(h)[:, 0] + (self.project(c) * h).sum(-1)


def _halve(channels: int) -> list[nn.Module]:
    return [Conv2d(channels, channels, 4, 2, 1), _LayerNorm(channels), nn.LeakyReLU(0.2)]


class _LayerNorm(nn.Module):
    """Normalise each image over channels and pixels, then scale and shift the channels.

    Made of what has derivatives of every order: those of the penalty's gradient are of the third.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, (1, 2, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(var + self.eps) * self.weight[:, None, None]
        return (x - mean) * scale + self.bias[:, None, None]
