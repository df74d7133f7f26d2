"""MNIST and its siblings of the same form."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from metagen.data import idx, pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.download import Remote, download
from metagen.ranges import Text

_FILES = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}


class MNIST(Dataset):
    """60,000 + 10,000 digits of 28x28 pixels (LeCun, Cortes, Burges); the 10,000 are held.

    Files: ``root/MNIST/raw/train-images-idx3-ubyte`` and its like, or the same with ``.gz``.
    """

    name = "mnist"
    folder: ClassVar[str] = "MNIST"
    checksums: ClassVar[dict[str, str]] = {  # of the uncompressed files; those of the .gz are torchvision's
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "digits_789",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    @property
    def raw(self) -> Path:
        """The folder of the files."""
        return self.root / self.folder / "raw"

    def _torchvision(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.folder)

    def _path(self, file: str) -> Path:
        plain = self.raw / file
        return plain if plain.is_file() else self.raw / f"{file}.gz"

    def sources(self) -> list[Path]:
        """Return the files, downloading those that are missing."""
        files = [file for pair in _FILES.values() for file in pair]
        missing = [f"{file}.gz" for file in files if not self._path(file).is_file()]
        if missing:
            tv = self._torchvision()
            md5 = dict(tv.resources)
            remotes = {file: Remote([mirror + file for mirror in tv.mirrors], md5[file]) for file in missing}
            download(self.raw, remotes, self.name)
        return [self._path(file) for file in files]

    def _array(self, file: str) -> Tensor:
        path = self._path(file)
        expected = dict(self._torchvision().resources)[path.name] if path.suffix else self.checksums.get(file)
        if expected:
            idx.check_md5(path, expected)
        return idx.decode(path.read_bytes(), path)

    def read(self) -> Bank:
        """Read and check the files."""
        parts = [
            idx.pair(self._array(images), self._array(labels), self._path(images))
            for images, labels in _FILES.values()
        ]
        images, labels = (torch.cat(arrays) for arrays in zip(*parts, strict=True))
        held = torch.arange(len(images)) >= len(parts[0][0])
        return Bank.build(self.name, pixels.resize(images, self.size), labels, "0123456789", held)


class FashionMNIST(MNIST):
    """60,000 + 10,000 garments of 28x28 pixels (Xiao, Rasul, Vollgraf 2017); classes "0" to "9"."""

    name = "fashion_mnist"
    folder = "FashionMNIST"
    checksums: ClassVar[dict[str, str]] = {}


class KMNIST(MNIST):
    """60,000 + 10,000 cursive hiragana of 28x28 pixels (Clanuwat et al. 2018); classes "0" to "9"."""

    name = "kmnist"
    folder = "KMNIST"
    checksums: ClassVar[dict[str, str]] = {}
