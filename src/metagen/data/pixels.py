"""Transforms of many images at once."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from metagen.functional import rng


def resize(images: Tensor, size: int, chunk: int = 2048) -> Tensor:
    """Resize uint8 images (M, ..., H, W) to (M, ..., size, size): bilinear, antialiased when it shrinks."""
    if images.shape[-2:] == (size, size):
        return images
    out = torch.empty((*images.shape[:-2], size, size), dtype=torch.uint8)
    for start in range(0, len(images), chunk):  # a float copy of everything would take gigabytes
        some = slice(start, start + chunk)
        part = images[some].reshape(-1, 1, *images.shape[-2:]).float()
        part = functional.interpolate(part, size=(size, size), mode="bilinear", antialias=True)
        out[some] = part.round_().clamp_(0, 255).byte().reshape(out[some].shape)
    return out


def channeled(images: Tensor, channels: int) -> Tensor:
    """Return uint8 images (M, H, W), (M, 1, H, W) or (M, 3, H, W) with ``channels`` channels (M, C, H, W).

    Grey becomes colour by three equal channels, colour becomes grey by its luma (ITU-R BT.601, as in PIL):
    0.299 R + 0.587 G + 0.114 B.
    """
    x = images.unsqueeze(1) if images.ndim == 3 else images
    if x.shape[1] == channels:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32).reshape(1, 3, 1, 1)
    return torch.cat(
        [((p.int() * weights).sum(1, keepdim=True) + 0x8000 >> 16).byte() for p in x.split(2048)]
    )


def framed(images: Tensor, size: int) -> Tensor:
    """Frame the ink of uint8 images (M, H, W) as MNIST does: (M, size, size).

    The longer side of the ink's bounding box becomes 20/28 of ``size``; the ink's centre of mass
    goes to the middle, as far as the box fits. An image without ink stays empty.
    """
    out = torch.zeros((len(images), size, size), dtype=torch.uint8)
    for image, target in zip(images, out, strict=True):
        rows, columns = (image.any(axis).nonzero()[:, 0] for axis in (1, 0))
        if not len(rows):
            continue
        ink = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
        scale = 20 / 28 * size / max(ink.shape)
        h, w = (max(1, round(scale * side)) for side in ink.shape)
        small = functional.interpolate(ink[None, None], size=(h, w), mode="bilinear", antialias=True)[0, 0]
        top, left = (
            round(min(max((size - 1) / 2 - _centre(small.sum(axis)), 0), size - side))
            for axis, side in ((1, h), (0, w))
        )
        target[top : top + h, left : left + w] = small.round_().clamp_(0, 255).byte()
    return out


def _centre(mass: Tensor) -> float:
    """Return the mean position under the masses (L,)."""
    return float((mass * torch.arange(len(mass))).sum() / mass.sum())


def unit(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32).mul_(1 / 255)


def symmetries(size: int, channels: int = 1) -> Tensor:
    """Return the dihedral group as permutations (8, C * size * size) of flat images; entry 0 is the identity.

    Entry s mirrors left-right if s >= 4, then turns by (s mod 4) quarter turns:
    ``rot90(flip(x, -1) if s >= 4 else x, s % 4)``.
    """
    grids = torch.arange(channels * size * size).reshape(channels, size, size)
    return torch.stack([grid.flatten() for grid in turns(grids)])


def turns(images: Tensor) -> Iterator[Tensor]:
    """Yield images (..., S, S) under the eight symmetries, in the order of :func:`symmetries`."""
    for start in (images, images.flip(-1)):
        for quarters in range(4):
            yield torch.rot90(start, quarters, (-2, -1))


def permute(images: Tensor, permutation: Tensor) -> Tensor:
    """Reorder the pixels of images (B, K, P) by one permutation (B, P) for each of the B groups."""
    b, k, p = images.shape
    rows = images.transpose(1, 2).reshape(b * p, k)  # a pixel's K values move together: 2x faster
    index = torch.arange(b).unsqueeze(1) * p + permutation
    return rows.index_select(0, index.reshape(-1)).reshape(b, p, k).transpose(1, 2).contiguous()


def dilate(images: Tensor, amount: Tensor) -> Tensor:
    """Thicken strokes: x' = (1 - a) x + a maxpool_3x3(x), with images (T, ..., H, W) and amounts (T,)."""
    # On a CPU the few that change; elsewhere all, since nobody there waits for the number of the few.
    few = amount.device.type == "cpu"
    chosen = amount.nonzero()[:, 0] if few else torch.arange(len(amount), device=amount.device)
    x = images[chosen]
    thick = functional.max_pool2d(x.reshape(-1, 1, *x.shape[-2:]), 3, stride=1, padding=1).reshape(x.shape)
    a = amount[chosen].reshape(-1, *[1] * (x.ndim - 1))
    return images.index_copy(0, chosen, x.lerp(thick, a))


def binarize(images: Tensor, how: str, key: Tensor) -> Tensor:
    """Return 0/1 images of images (T, ..., H, W): x >= 0.5, or x ~ Bernoulli(grey) from ``key`` (T,)."""
    if how == "threshold":
        return (images >= 0.5).to(images.dtype)
    return (rng.uniform(key, tuple(images.shape[1:])) < images).to(images.dtype)
