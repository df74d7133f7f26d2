"""What chooses among several drawings: a critic of pairs, and a network that recognises the class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen.functional import rng
from metagen.models.layers import Conv2d, GroupNorm

FEATURES = 48
"""Numbers by which an image is recognised."""
TYPICAL = 20.0
"""Squared distance of two classes in these numbers, about."""


class Critic(nn.Module):
    """Logits (B,) of pairs of images a, b (B, C, S, S): log p(b real | a) / p(b generated | a).

    Trained by cross-entropy on as many pairs of either kind it estimates this ratio (Goodfellow et al.:
    *Generative adversarial nets*, NeurIPS 2014).

    Args:
        colours: C.
        size: S, a multiple of 4.
        channels: width of the first layers, a multiple of 4.
        ink: compare ink only (pixels above 1/2), as fits strokes: shades of grey show how an image was
            resampled and not who has drawn it.
    """

    def __init__(self, colours: int, size: int, channels: int, ink: bool) -> None:
        super().__init__()
        wide = 2 * channels
        self.ink = ink
        self.net = nn.Sequential(
            *_layer(2 * colours, channels),
            *_layer(channels, channels, 2),
            *_layer(channels, wide),
            *_layer(wide, wide, 2),
            *_layer(wide, wide),
        )
        self.pool, parts = _pool(size // 4, 3)
        self.out = nn.Linear(wide * parts**2, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Look at both images at once."""
        x = torch.cat([a, b], 1)
        x = self.net((x > 0.5).to(x) if self.ink else x)
        logits: Tensor = self.out(self.pool(x).flatten(1))[:, 0]
        return logits

    def loss(self, a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        """Return the cross-entropy between real images b and generated ones x, given a."""
        return F.softplus(-self(a, b)).mean() + F.softplus(self(a, x)).mean()


class Recogniser(nn.Module):
    r"""r(x, m) = log p(x | m) / p(x): how much likelier is x as a drawing of the class of m than of any?

    .. math:: r(x, m) = -\|e(x) - m\|^2 - Z(x), \qquad
              Z(x) \approx \log \operatorname{mean}_c e^{-\|e(x) - m_c\|^2}

    with m the mean of the embeddings e of a class's support images, a prototype (Snell et al.:
    *Prototypical networks for few-shot learning*, NeurIPS 2017). The cross-entropy between the classes of an
    episode makes r this ratio (van den Oord et al.: *Representation learning with contrastive predictive
    coding*, 2018). Z is learned by a net from the other classes of each training episode, since where a
    drawing is made no other class need be known.

    Args:
        colours: C.
        size: S, a multiple of 4.
        channels: width of the first layer, a multiple of 4.
    """

    def __init__(self, colours: int, size: int, channels: int) -> None:
        super().__init__()
        middle, wide = channels * 3 // 8 * 4, 2 * channels
        self.net = nn.Sequential(
            *_layer(colours, channels, 2),
            *_layer(channels, middle),
            *_layer(middle, middle, 2),
            *_layer(middle, wide),
            *_layer(wide, wide, 2),
        )
        self.pool, parts = _pool(math.ceil(size / 8), 2)
        self.out = nn.Linear(wide * parts**2, FEATURES)
        self.any = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.SiLU(), nn.Linear(FEATURES, 1))

    def embed(self, x: Tensor) -> Tensor:
        """Map images (B, C, S, S) to e(x), (B, F)."""
        found: Tensor = self.out(self.pool(self.net(x)).flatten(1))
        return found

    def prototypes(self, memory: Tensor) -> Tensor:
        """Map the support images (N, K, C, S, S) of classes to m, (N, F)."""
        return self.embed(memory.flatten(0, 1)).unflatten(0, memory.shape[:2]).mean(1)

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        """Map images (B, C, S, S) and prototypes (B, F) to r, (B,)."""
        e = self.embed(x)
        return -(e - m).square().sum(-1) - self._of_any(e)

    def loss(self, x: Tensor, y: Tensor, m: Tensor, generated: Tensor) -> Tensor:
        """Return the cross-entropy of real images x of classes y (B,) and the error of Z.

        One class alone teaches nothing: 0.

        Args:
            x: (B, C, S, S).
            y: rows of m.
            m: prototypes (N, F).
            generated: images (B, C, S, S) in place of x: Z is learned of both.
        """
        e = self.embed(x)
        with torch.no_grad():
            drawn = self.embed(generated)
        near = -_distances(e, m)
        if len(m) == 1:
            return near.sum() * 0
        error = self._error(e.detach(), near.detach(), y) + self._error(
            drawn, -_distances(drawn, m).detach(), y
        )
        return F.cross_entropy(near, y) + error

    def _error(self, e: Tensor, near: Tensor, y: Tensor) -> Tensor:
        """Return the squared error of Z, over the square of a typical value."""
        own = F.one_hot(y, near.shape[1]).bool()
        others = near.masked_fill(own, -torch.inf).logsumexp(1) - math.log(near.shape[1] - 1)
        return ((self._of_any(e) - others) / TYPICAL).square().mean()

    def _of_any(self, e: Tensor) -> Tensor:
        found: Tensor = TYPICAL * (self.any(e)[:, 0] - 1)
        return found


def chosen(x: Tensor, logits: Tensor, key: Tensor) -> Tensor:
    """Return of images x (G B, ...) one of each G, with probability proportional to exp(logits (G, B))."""
    noise = -(-rng.uniform(key, tuple(logits.shape)).log()).log()  # Gumbel's, whose argmax is a draw
    best = (logits + noise).argmax(0)
    return x[best * logits.shape[1] + torch.arange(logits.shape[1], device=x.device)]


def _distances(e: Tensor, m: Tensor) -> Tensor:
    """Return squared distances (B, N)."""
    return (e[:, None] - m).square().sum(-1)


def _layer(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [Conv2d(inputs, outputs, 3, stride, 1), nn.SiLU(), GroupNorm(4)]


def _pool(side: int, parts: int) -> tuple[nn.Module, int]:
    """Return what takes maxima over at most ``parts`` parts of each side of a map, and how many these are."""
    each = math.ceil(side / parts)
    return nn.MaxPool2d(each, ceil_mode=True), math.ceil(side / each)
