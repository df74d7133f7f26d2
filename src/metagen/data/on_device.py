"""A batch on its way to a GPU: the indices of its images travel, the images lie there already."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metagen.core.episode import Episode
from metagen.data import pixels
from metagen.data.bank import Bank

SHARE = 0.25
"""Of a GPU's free memory is the most that the images of a bank may take there."""


class TurnedThere:
    """Images on a device, turned pixel by pixel as they are gathered.

    Args:
        images: (M, C, H, W) uint8, on the device.
        copies: 8 where images are turned, else 1.
    """

    def __init__(self, images: Tensor, copies: int) -> None:
        self._flat, (c, h) = images.flatten(1), images.shape[1:3]
        self._pixels = pixels.symmetries(h, c).to(images.device) if copies > 1 else None

    def take(self, rows: Tensor, symmetry: Tensor) -> Tensor:
        """Return images ``rows`` (B, K), each group under ``symmetry`` (B,): float32 (B, K, P) in [0, 1]."""
        x = self._flat.index_select(0, rows.flatten()).reshape(*rows.shape, -1)
        if self._pixels is not None:
            x = x.gather(-1, self._pixels[symmetry].unsqueeze(1).expand_as(x))
        return pixels.unit(x)


class Sent:
    """What is sent of a batch: its indices, to a sampler that makes the images of them where they arrive.

    Args:
        sampler: of the episodes, with ``on(device)``.
        draw: a named tuple of int64 indices.
    """

    def __init__(self, sampler: Any, draw: Any) -> None:
        self.sampler, self.draw = sampler, draw

    def to(self, device: torch.device) -> Episode:
        """Return the batch on ``device``; all indices travel in one copy, for which nothing waits."""
        flat = torch.cat([part.flatten() for part in self.draw])
        if device.type == "cuda":
            flat = flat.pin_memory()
        there = flat.to(device, non_blocking=True)
        return self.sampler.on(device).gather(_unpacked(there, self.draw))


def _unpacked(flat: Tensor, like: Any) -> Any:
    sizes = [part.numel() for part in like]
    parts = zip(flat.split(sizes), like, strict=True)
    return type(like)(*(values.view(part.shape) for values, part in parts))


def holds(device: torch.device, banks: Sequence[Bank]) -> bool:
    """Return whether ``device`` is no CPU and has room for the images of these banks."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(math.prod(bank.images.shape) for bank in banks) <= SHARE * free


def moved(sampler: Any, images: Tensor) -> Any:
    """Return a sampler like ``sampler`` that gathers from ``images`` where these lie."""
    there = copy.copy(sampler)
    there._turned = TurnedThere(images, 8 if bool((sampler.symmetry > 0).any()) else 1)
    there.symmetry = sampler.symmetry.to(images.device)
    return there
