"""Images of a bank as one gather wants them."""

import math
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from metagen.data import pixels

LIMIT = 2**28
"""Bytes above which the turned copies of a bank are not kept."""

_LOOKUP = "embedding_bag_byte_rowwise_offsets"


class TurnedImages(Protocol):
    """The images of a bank under the eight symmetries of :func:`metagen.data.pixels.symmetries`."""

    def take(self, rows: Tensor, symmetry: Tensor) -> Tensor:
        """Return images ``rows`` (B, K), each group under ``symmetry`` (B,): float32 (B, K, P) in [0, 1]."""
        ...


class Turning:
    """Turns the images when they are asked for; needs no memory of its own."""

    def __init__(self, images: Tensor, copies: int) -> None:
        self._images, self._flat, self._copies = images.numpy(), images.flatten(1), copies

    def take(self, rows: Tensor, symmetry: Tensor) -> Tensor:
        """Return images ``rows`` (B, K), each group under ``symmetry`` (B,): float32 (B, K, P) in [0, 1]."""
        if self._copies == 1:
            return pixels.unit(self._flat.index_select(0, rows.flatten()).reshape(*rows.shape, -1))
        index, how = rows.numpy(), symmetry.numpy()
        out = np.empty((*rows.shape, *self._images.shape[1:]), np.uint8)
        for s in range(self._copies):
            at = np.flatnonzero(how == s)
            if len(at):
                # NumPy copies a turned image twice as fast as torch moves its pixels one by one.
                x = self._images[index[at]]
                out[at] = np.rot90(x[..., ::-1] if s >= 4 else x, s % 4, (-2, -1))
        return pixels.unit(torch.from_numpy(out).flatten(2))


class Turned:
    """Keeps a copy of every image in every symmetry, made when the first one is asked for.

    A row is followed by the scale and the offset (0) of its bytes, the format of torch's tables of
    quantised embeddings. Their lookup gathers, converts and scales in one pass over the memory, to the
    same bits as :func:`metagen.data.pixels.unit`; three passes take twice as long.
    """

    def __init__(self, images: Tensor, copies: int) -> None:
        self._images, self._copies = images, copies

    def take(self, rows: Tensor, symmetry: Tensor) -> Tensor:
        """Return images ``rows`` (B, K), each group under ``symmetry`` (B,): float32 (B, K, P) in [0, 1]."""
        index = (rows + symmetry.unsqueeze(-1) * len(self._images)).flatten()
        lookup = getattr(torch.ops.quantized, _LOOKUP)
        return lookup(self._packed, index, torch.arange(len(index))).reshape(*rows.shape, -1)

    @cached_property
    def _packed(self) -> Tensor:
        m, *shape = self._images.shape
        p = math.prod(shape)
        packed = torch.empty((self._copies, m, p + 8), dtype=torch.uint8)
        packed[..., p:] = torch.tensor([1 / 255, 0.0]).view(torch.uint8)
        for copy, turned in zip(packed, pixels.turns(self._images), strict=False):
            copy[:, :p].unflatten(1, shape).copy_(turned)
        return packed.flatten(0, 1)


def turned_images(images: Tensor, symmetries: bool) -> TurnedImages:
    """Return the faster table of images (M, C, H, W) that fits into ``LIMIT`` bytes."""
    copies = 8 if symmetries else 1
    fits = copies * images.numel() <= LIMIT and hasattr(torch.ops.quantized, _LOOKUP)
    return (Turned if fits else Turning)(images, copies)
