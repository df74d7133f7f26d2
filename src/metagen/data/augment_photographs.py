r"""Random changes that suit photographs: colours, mirror images, crops; after torchvision's transforms v2.

They do to whole batches, with random numbers from the episodes' keys, what ``ColorJitter``,
``RandomHorizontalFlip`` and ``RandomCrop`` do to one image with numbers from the global generator.
"""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional

from metagen.data.augment import Augmentation, Per
from metagen.errors import MetagenError
from metagen.functional.constants import constant
from metagen.ranges import NonNegativeFloat, Probability, checked

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


class ColorJitter(Augmentation):
    r"""Change brightness, contrast, saturation and hue, in this order; grey images have the first two.

    .. math:: x' = b x, \quad x' = c x + (1 - c) \bar g, \quad x' = s x + (1 - s) g

    with g the luma of x, its mean over the image \bar g, and b, c, s ~ U(max(0, 1 - v), 1 + v) for each value
    v; then the hue moves by U(-hue, hue) turns of the circle. All is cut off at 0 and 1.

    Args:
        brightness, contrast, saturation: v of each, 0 or more.
        hue: in turns, from 0 to 0.5.
        per: see :class:`Augmentation`.
    """

    @checked
    def __init__(
        self,
        brightness: NonNegativeFloat = 0.2,
        contrast: NonNegativeFloat = 0.2,
        saturation: NonNegativeFloat = 0.2,
        hue: Annotated[float, Ge(0), Le(0.5)] = 0.02,
        per: Per = "image",
    ) -> None:
        super().__init__(per)
        self.values, self.hue = (brightness, contrast, saturation), hue

    def __call__(self, images: Tensor, key: Tensor) -> Tensor:
        """Return the images in other colours."""
        u = _spread(self.uniform(images, key, 4), images)
        low = [max(0.0, 1 - v) for v in self.values]
        factors = [
            lo + (1 + v - lo) * u[..., i] for i, (lo, v) in enumerate(zip(low, self.values, strict=True))
        ]
        x = adjusted(images, *factors)
        if self.hue and images.shape[3] == 3:
            x = turned(x, self.hue * (2 * u[..., 3] - 1))
        return x


class Flip(Augmentation):
    """Mirror left and right with probability ``p``."""

    @checked
    def __init__(self, p: Probability = 0.5, per: Per = "image") -> None:
        super().__init__(per)
        self.p = p

    def __call__(self, images: Tensor, key: Tensor) -> Tensor:
        """Return the images, some mirrored."""
        chosen = _spread(self.uniform(images, key, 1), images) < self.p
        return torch.where(chosen, images.flip(-1), images)


class Crop(Augmentation):
    """Move by up to ``padding`` whole pixels each way; the gap repeats the image as a mirror does."""

    @checked
    def __init__(self, padding: Annotated[int, Ge(0), Le(1024)] = 4, per: Per = "image") -> None:
        super().__init__(per)
        self.padding = padding

    def __call__(self, images: Tensor, key: Tensor) -> Tensor:
        """Return the moved images."""
        p, side = self.padding, images.shape[-1]
        if p >= side:
            raise MetagenError(f"augment: padding={p} is no less than the image's side of {side}: lower it")
        u = _spread(self.uniform(images, key, 2), images)[..., 0, 0, 0, :]
        top, left = (u * (2 * p + 1)).long().clamp_(max=2 * p).flatten(0, 2).unbind(-1)
        padded = functional.pad(images.flatten(0, 2), [p] * 4, mode="reflect")
        ahead = torch.arange(side, device=images.device)
        rows = (top[:, None] + ahead)[:, None, :, None].expand(-1, images.shape[3], -1, padded.shape[-1])
        columns = (left[:, None] + ahead)[:, None, None, :].expand(-1, images.shape[3], side, -1)
        return padded.gather(2, rows).gather(3, columns).reshape(images.shape)


def adjusted(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Return images (..., C, H, W) in [0, 1] with these factors, each (..., 1, 1, 1)."""
    x = (x * brightness).clamp(0, 1)
    x = x.lerp(_grey(x).mean((-3, -2, -1), keepdim=True).expand_as(x), 1 - contrast).clamp(0, 1)
    if x.shape[-3] == 3:
        x = x.lerp(_grey(x).expand_as(x), 1 - saturation).clamp(0, 1)
    return x


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Return images (..., 3, H, W) in [0, 1] with the HSV hue moved by ``turns`` (..., 1, 1, 1)."""
    most, least = x.amax(-3, keepdim=True), x.amin(-3, keepdim=True)
    spread = most - least
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    r, g, b = ((most - channel) / safe for channel in x.split(1, -3))
    red, green, _ = (channel == most for channel in x.split(1, -3))
    hue = torch.where(red, b - g, torch.where(green, 2 + r - b, 4 + g - r)) / 6 + turns
    offset = constant((5.0, 3.0, 1.0), x).reshape(3, 1, 1)
    k = (offset + 6 * hue) % 6
    return most - spread * torch.minimum(k, 4 - k).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    if x.shape[-3] == 1:
        return x
    return (x * constant(_LUMA, x).reshape(3, 1, 1)).sum(-3, keepdim=True)


def _spread(u: Tensor, images: Tensor) -> Tensor:
    """Return numbers (G, n) of the groups as (T, N, K or 1, 1, 1, 1, n), or without n where it is one."""
    t, n = images.shape[:2]
    spread = u.reshape(t, n, -1, 1, 1, 1, u.shape[-1])
    spread = spread.expand(-1, -1, images.shape[2], -1, -1, -1, -1)
    return spread[..., 0] if u.shape[-1] == 1 else spread
