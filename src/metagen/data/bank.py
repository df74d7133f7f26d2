"""All images of a data set, in memory or mapped from a file, grouped by class."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metagen.errors import MetagenError
from metagen.files import is_text

CHANNELS = (1, 3)
"""What a pixel may have: a grey level, or red, green and blue."""
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Bank:
    """Images sorted by class; drawings have ink = 255 on 0.

    name:   the data set.
    images: (M, C, H, W) uint8, H = W, one channel (grey) or three (red, green, blue); (M, H, W) is taken
            for one channel.
    labels: (M,) int64, ascending; ``names[labels[m]]`` is the class of image m.
    names:  the C class names; every class has at least one image.
    held:   (M,) bool, the published test part (all False where there is none).

    Raises:
        MetagenError: the fields do not fit together.
    """

    name: str
    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    held: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim == 3:
            object.__setattr__(self, "images", self.images.unsqueeze(1))
        m, shape = len(self.images), tuple(self.images.shape)
        good = len(shape) == 4 and shape[1] in CHANNELS and shape[2] == shape[3]
        self._require(good, "square images (M, C, H, W) with C = 1 or 3", f"shape {shape}")
        for field, dtype in (("images", torch.uint8), ("labels", torch.int64), ("held", torch.bool)):
            value = getattr(self, field)
            self._require(value.dtype == dtype, f"{field} of {dtype}", value.dtype)
        for field in ("labels", "held"):
            shape = tuple(getattr(self, field).shape)
            self._require(shape == (m,), f"{field} ({m},)", f"shape {shape}")
        self._require(m > 0, "at least one image", m)
        odd = [name for name in self.names if not is_text(name)]
        self._require(not odd, "names of classes that are text in UTF-8", odd[:3])
        self._require(bool((self.labels.diff() >= 0).all()), "ascending labels", "unsorted ones")
        self._require(len(set(self.names)) == len(self.names), "distinct class names", "a repeated one")
        found = torch.unique_consecutive(self.labels)
        classes = torch.arange(len(self.names))
        self._require(torch.equal(found, classes), f"images of all {len(classes)} classes", f"{len(found)}")

    def _require(self, ok: bool, expected: str, found: object) -> None:
        if not ok:
            raise MetagenError(f"bank '{self.name}': expected {expected}, found {found}: check its data")

    @classmethod
    def build(cls, name: str, images: Tensor, labels: Tensor, names: Sequence[str], held: Tensor) -> "Bank":
        """Return the bank of images in any order; within a class the order stays."""
        order = labels.argsort(stable=True)
        return cls(name, images[order].contiguous(), labels[order], tuple(names), held[order])

    @cached_property
    def counts(self) -> Tensor:
        """(C,) int64, number of images of each class."""
        return torch.bincount(self.labels, minlength=len(self.names))

    @cached_property
    def offsets(self) -> Tensor:
        """(C,) int64, index of the first image of each class."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    @cached_property
    def sha256(self) -> str:
        """Checksum of images and labels."""
        m, c, *sides = self.images.shape
        digest = hashlib.sha256(repr((m, *([c] if c > 1 else []), *sides)).encode())
        for tensor in (*self.images.split(_CHUNK), self.labels):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def on(self, device: torch.device) -> Tensor:
        """Return the images on ``device``, copied there once."""
        if device not in self._copies:
            self._copies[device] = self.images.to(device)
        return self._copies[device]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """Height and width of the images in pixels."""
        return self.images.shape[-1]
