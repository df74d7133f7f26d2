"""Random changes of training images: the same for a class, or for each image its own.

A change that a class shares makes a new class of it; one that each image has for itself teaches
how images of one class differ.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.affine import affine_grid
from metagen.ranges import NonNegativeFloat, PositiveFloat, checked

Per = Literal["class", "image"]
Padding = Literal["zeros", "border", "reflection"]


class Augmentation:
    """A random map of the images (T, N, K, C, H, W) of T episodes, a pure function of their keys.

    Args:
        per: ``"class"``: one draw for all support and query images of a class; ``"image"``: one each.
    """

    @checked
    def __init__(self, per: Per = "class") -> None:
        self.per = per

    def __call__(self, images: Tensor, key: Tensor) -> Tensor:
        """Return the changed images for keys (T,)."""
        raise NotImplementedError

    def groups(self, images: Tensor) -> Tensor:
        """Return (G, M, H, W), the channels of the images that share a draw side by side."""
        return images.flatten(0, 2) if self.per == "image" else images.flatten(0, 1).flatten(1, 2)

    def uniform(self, images: Tensor, key: Tensor, numbers: int) -> Tensor:
        """Return ``numbers`` random numbers from (0, 1) for each group, (G, numbers)."""
        draws = images.shape[2] if self.per == "image" else 1
        return rng.uniform(key, (images.shape[1], draws, numbers), images.dtype).flatten(0, 2)


class RandomAffine(Augmentation):
    r"""Resample by a random affine map, bilinearly: x'(u) = x(A u + b), u in [-1, 1]^2.

    .. math:: A = R(t) \begin{pmatrix} s_x & h \\ 0 & s_y \end{pmatrix}

    with t ~ N(0, turn^2) in radians, h ~ N(0, shear^2), log s_x and log s_y ~ N(0, scale^2) and
    b ~ N(0, shift^2) in pixels. What lies outside is background (``padding="zeros"``), or for photographs the
    image's border or its mirror image (``"border"``, ``"reflection"``).
    """

    @checked
    def __init__(
        self,
        turn: NonNegativeFloat = 0.12,
        shear: NonNegativeFloat = 0.2,
        scale: NonNegativeFloat = 0.1,
        shift: NonNegativeFloat = 0.5,
        per: Per = "class",
        padding: Padding = "zeros",
    ) -> None:
        super().__init__(per)
        self.padding = padding
        self.turn, self.shear, self.scale, self.shift = turn, shear, scale, shift

    def __call__(self, images: Tensor, key: Tensor) -> Tensor:
        """Return the warped images."""
        e = torch.erfinv(2 * self.uniform(images, key, 6) - 1) * math.sqrt(2)
        cos, sin = (self.turn * e[:, 0]).cos(), (self.turn * e[:, 0]).sin()
        h, sx, sy = self.shear * e[:, 1], (self.scale * e[:, 2]).exp(), (self.scale * e[:, 3]).exp()
        b = e[:, 4:] * (2 * self.shift / images.shape[-1])
        rows = [cos * sx, cos * h - sin * sy, b[:, 0], sin * sx, sin * h + cos * sy, b[:, 1]]
        groups = self.groups(images)
        grid = affine_grid(torch.stack(rows, -1).reshape(-1, 2, 3), *groups.shape[-2:])
        warped = functional.grid_sample(groups, grid, padding_mode=self.padding, align_corners=False)
        return warped.reshape(images.shape)


class Thicken(Augmentation):
    """Draw with a broader pen: x' = min(1, g (G * x)), g ~ U(low, high), G a Gaussian blur.

    Args:
        low: smallest gain.
        high: largest gain.
        width: standard deviation of the 5 x 5 blur, in pixels.
        per: see :class:`Augmentation`.
    """

    @checked
    def __init__(
        self,
        low: PositiveFloat = 1.3,
        high: PositiveFloat = 2.6,
        width: PositiveFloat = 0.7,
        per: Per = "class",
    ) -> None:
        super().__init__(per)
        if low > high:
            raise MetagenError(f"augment: low={low}, high={high}: expected low <= high")
        self.low, self.high = low, high
        self.width = width

    def __call__(self, images: Tensor, key: Tensor) -> Tensor:
        """Return the images with broader strokes."""
        gain = self.low + (self.high - self.low) * self.uniform(images, key, 1)
        taps = torch.exp(-(torch.arange(-2.0, 3.0, device=images.device) ** 2) / (2 * self.width**2))
        taps = (taps / taps.sum()).to(images.dtype)
        x = functional.conv2d(images.flatten(0, 3).unsqueeze(1), taps.reshape(1, 1, 1, 5), padding=(0, 2))
        x = functional.conv2d(x, taps.reshape(1, 1, 5, 1), padding=(2, 0))
        x = self.groups(x.reshape(images.shape)) * gain[:, :, None, None]
        return x.clamp(max=1).reshape(images.shape)
