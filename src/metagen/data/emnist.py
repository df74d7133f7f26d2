"""EMNIST: letters and digits of the NIST special database 19."""

import string
import zipfile
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from metagen.data import idx, pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.download import Remote, download
from metagen.ranges import Text

_ARCHIVE = "gzip.zip"
_BALANCED = string.digits + string.ascii_uppercase + "abdefghnqrt"  # the others look alike in both cases


class EMNISTLetters(Dataset):
    """124,800 + 20,800 letters, upper and lower case in one class (Cohen et al. 2017); classes a to z.

    Files: ``root/EMNIST/raw/gzip.zip`` as published, or ``emnist-letters-train-images-idx3-ubyte``
    and its like beside it (also in the folder ``gzip``), with or without ``.gz``.
    """

    name = "emnist_letters"
    part: ClassVar[str] = "letters"
    classes: ClassVar[str] = string.ascii_lowercase
    first: ClassVar[int] = 1  # the number of the first class in the files

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "emnist_letters",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    @property
    def raw(self) -> Path:
        """The folder of the files."""
        return self.root / "EMNIST" / "raw"

    def _files(self) -> list[str]:
        return [
            f"emnist-{self.part}-{side}-{what}-ubyte"
            for side in ("train", "test")
            for what in ("images-idx3", "labels-idx1")
        ]

    def _path(self, file: str) -> Path:
        places = [self.raw / file, self.raw / f"{file}.gz", self.raw / "gzip" / f"{file}.gz"]
        return next((path for path in places if path.is_file()), self.raw / _ARCHIVE)

    def sources(self) -> list[Path]:
        """Return the files, downloading those that are missing."""
        paths = [self._path(file) for file in self._files()]
        if not all(path.is_file() for path in paths):
            from torchvision.datasets import EMNIST

            download(self.raw, {_ARCHIVE: Remote([EMNIST.url], EMNIST.md5)}, self.name)
        return paths

    def _array(self, file: str) -> Tensor:
        path = self._path(file)
        if path.name != _ARCHIVE:
            return idx.decode(path.read_bytes(), path)
        with zipfile.ZipFile(path) as archive:
            return idx.decode(archive.read(f"gzip/{file}.gz"), path)

    def read(self) -> Bank:
        """Read and check the files."""
        if any(path.name == _ARCHIVE for path in self.sources()):
            from torchvision.datasets import EMNIST

            idx.check_md5(self.raw / _ARCHIVE, EMNIST.md5)
        arrays = [self._array(file) for file in self._files()]
        parts = [idx.pair(arrays[i], arrays[i + 1], self._path(self._files()[i])) for i in (0, 2)]
        images, labels = (torch.cat(each) for each in zip(*parts, strict=True))
        upright = images.transpose(1, 2)  # the published files have rows and columns exchanged
        held = torch.arange(len(images)) >= len(parts[0][0])
        ink = pixels.resize(upright, self.size)
        return Bank.build(self.name, ink, labels - self.first, self.classes, held)


class EMNISTBalanced(EMNISTLetters):
    """112,800 + 18,800 digits and letters in 47 classes of equal size (Cohen et al. 2017)."""

    name = "emnist_balanced"
    part = "balanced"
    classes = _BALANCED
    first = 0

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "emnist_balanced",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)
