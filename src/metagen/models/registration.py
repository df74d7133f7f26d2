r"""Registration: the deformation that carries one drawing of a character onto another.

A deformation is z, D = 6 + 2 C^2 numbers of about unit size: an affine map (:mod:`metagen.models.resample`)
and, added to it, displacements of C x C control points, between which cubic B-splines run (Rueckert et al.:
*Nonrigid registration using free-form deformations*, IEEE TMI 1999). It is fitted by the energy

.. math:: E(z; a, b) = \frac{\|a \circ z - b\|^2}{\|a\|^2 + \|b\|^2}
          + \lambda (\|\nabla^2 d\|^2 + 0.3 \|d\|^2 + 0.2 \|A\|^2)

of blurred images, with A the affine numbers and d the displacements. A network guesses z (Balakrishnan et
al.: *VoxelMorph*, IEEE TMI 2019), and a few steps of descent correct its guess.

In colour the same form may come in other colours, so a is painted first as b is, by the affine map of
colours W, w that fits best, and what is left is measured against the spread of b,

.. math:: \min_{W, w} \frac{\|W (a \circ z) + w - b\|^2}{\|b - \bar b\|^2}

as an appearance transform is estimated beside a spatial one (Zhao et al.: *Data augmentation using learned
transformations for one-shot medical image segmentation*, CVPR 2019).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen.functional.vectorize import gradient
from metagen.models.layers import Conv2d
from metagen.models.resample import ENLARGED, affine, sharply

UNITS = (0.126, 0.113, 0.18, 0.18, 0.146, 0.146)
"""Turn (radians), shear, log scales, shifts (half sides), as Omniglot's drawings of a character differ."""
BLURS = (2.0, 0.6)
"""Standard deviations in pixels: coarse to find the way, fine to arrive."""
RIDGE = 1e-3
"""Added to the variances of colours before they are divided by: flat images have none."""


class Deformation(nn.Module):
    """Images under deformations z (B, D).

    Args:
        size: S, side of the images.
        points: C, control points on a side, 4 or more.
        unit: displacement of a control point, in half sides, that is one in z.
        stiffness: lambda.
        contrast: of :func:`metagen.models.resample.sharply`.
        colours: channels of an image; with 3, forms are compared whatever their colours are.
    """

    units: Tensor
    basis: Tensor
    enlarged: Tensor

    def __init__(
        self, size: int, points: int, unit: float, stiffness: float, contrast: float, colours: int = 1
    ) -> None:
        super().__init__()
        self.colours, self.outside = colours, "zeros" if colours == 1 else "border"
        self.size, self.points, self.stiffness, self.contrast = size, points, stiffness, contrast
        self.numbers = len(UNITS) + 2 * points**2
        units = torch.tensor([*UNITS, *[unit] * (2 * points**2)])
        self.register_buffer("units", units, persistent=False)
        self.register_buffer("basis", spline_basis(size, points), persistent=False)
        self.register_buffer("enlarged", spline_basis(ENLARGED * size, points), persistent=False)
        for level, sigma in enumerate(BLURS):
            self.register_buffer(f"blur{level}", gaussian_taps(sigma), persistent=False)

    def sharp(self, z: Tensor, images: Tensor) -> Tensor:
        """Return images (B, ., S, S) under z, resampled sharply."""
        return sharply(images, self._where(z, self.enlarged), self.contrast, self.outside)

    def soft(self, z: Tensor, images: Tensor) -> Tensor:
        """Return images (B, ., S, S) under z, bilinearly, which has a derivative."""
        where = self._where(z, self.basis)
        return F.grid_sample(images, where, padding_mode=self.outside, align_corners=False)

    def blurred(self, images: Tensor) -> list[Tensor]:
        """Return images (B, C, S, S) at each of the blurs."""
        taps = [getattr(self, f"blur{level}") for level in range(len(BLURS))]
        return [_blur(images, these, "constant" if self.colours == 1 else "replicate") for these in taps]

    def gap(self, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return what is left between a under z and b, 0 where they are alike, (B,)."""
        moved = self.soft(z, a)
        if self.colours > 1:
            return _after_painting(moved, b)
        scale = (a.square() + b.square()).sum((1, 2, 3)) + 1e-3
        return (moved - b).square().sum((1, 2, 3)) / scale

    def energy(self, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return E(z; a, b) of images that were blurred, (B,)."""
        numbers = z * self.units
        maps, d = numbers[:, :6], numbers[:, 6:].unflatten(1, (2, self.points, self.points))
        bend = d.diff(n=2, dim=-1).square().sum((1, 2, 3)) + d.diff(n=2, dim=-2).square().sum((1, 2, 3))
        small = 0.3 * d.square().sum((1, 2, 3)) + 0.2 * maps.square().sum(1)
        return self.gap(z, a, b) + self.stiffness * (bend + small)

    def refine(self, z: Tensor, a: Sequence[Tensor], b: Sequence[Tensor], steps: int, rate: float) -> Tensor:
        """Return z after ``steps`` steps of Adam on the energy, the first third on the coarse blur."""
        first, second = torch.zeros_like(z), torch.zeros_like(z)
        for i in range(steps):
            level = 0 if 3 * i < steps else len(BLURS) - 1
            slope = gradient(lambda z, a, b: self.energy(z, a, b).sum(), z, a[level], b[level])
            first = 0.8 * first + 0.2 * slope
            second = 0.95 * second + 0.05 * slope.square()
            mean, size = first / (1 - 0.8 ** (i + 1)), (second / (1 - 0.95 ** (i + 1))).sqrt()
            z = z - rate * (1 - i / steps) * mean / (size + 1e-6)
        return z

    def _where(self, z: Tensor, basis: Tensor) -> Tensor:
        numbers = z * self.units
        d = numbers[:, 6:].unflatten(1, (2, self.points, self.points))
        field = torch.einsum("ip,bcpq,jq->bijc", basis, d, basis)
        return affine(numbers[:, :6], len(basis)) + field


class Guess(nn.Module):
    """Guess z (B, ``numbers``) of pairs of images a and b (B, ``colours``, S, S)."""

    def __init__(self, size: int, numbers: int, channels: int, hidden: int, colours: int = 1) -> None:
        super().__init__()
        self.see, seen = strided(2 * colours, size, channels)
        last = nn.Linear(hidden, numbers)
        self.out = nn.Sequential(nn.Linear(seen, hidden), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Look at both images at once."""
        out: Tensor = self.out(self.see(torch.cat([a, b], 1)))
        return out


def strided(inputs: int, size: int, channels: int) -> tuple[nn.Sequential, int]:
    """Return a net that maps images (B, ``inputs``, S, S) to vectors (B, F), halving them thrice, and F."""
    sizes, layers, side = (inputs, channels, 2 * channels, 4 * channels), [], size
    for before, after in pairwise(sizes):
        layers += [Conv2d(before, after, 3, 2, 1), nn.SiLU()]
        side = (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten()), 4 * channels * side**2


def spline_basis(side: int, points: int) -> Tensor:
    """Return the weights of ``points`` control points at ``side`` pixel centres, cubic, (side, points)."""
    at = (torch.arange(side) + 0.5) / side * (points - 1)
    away = (at[:, None] - torch.arange(points)).abs()
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - away).clamp(min=0) ** 3 / 6
    weights = torch.where(away < 1, near, far)
    return weights / weights.sum(1, keepdim=True)


def gaussian_taps(sigma: float) -> Tensor:
    """Return the weights of a Gaussian at whole pixels, up to 3 sigma, which sum to one."""
    reach = int(3 * sigma + 0.5)
    taps = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    return taps / taps.sum()


def _blur(images: Tensor, taps: Tensor, outside: str) -> Tensor:
    reach = len(taps) // 2
    planes = F.pad(images.flatten(0, 1)[:, None], [reach] * 4, outside)
    rows = F.conv2d(planes, taps.view(1, 1, 1, -1))
    return F.conv2d(rows, taps.view(1, 1, -1, 1)).view(images.shape)


def _after_painting(a: Tensor, b: Tensor) -> Tensor:
    """Return the share of the spread of b (B, C, S, S) that no affine map of the colours of a explains, (B,).

    The map is held constant in the derivative, which is exact: at its best a change of it changes nothing.
    """
    x, y = a.flatten(2) - a.mean((2, 3))[..., None], b.flatten(2) - b.mean((2, 3))[..., None]
    still, pixels = x.detach(), x.shape[2]
    covariance = still @ still.mT / pixels + RIDGE * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(covariance, still @ y.mT / pixels)
    left = (y - weights.mT @ x).square().mean((1, 2))
    return left / (y.square().mean((1, 2)) + RIDGE)
