"""Omniglot as Generative Matching Networks used it: 28x28 and binary."""

import zipfile
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from metagen.data import idx, pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.errors import MetagenError
from metagen.ranges import Text

_ADVICE = "get the file from the folder data of https://github.com/sbos/gmn"


class OmniglotGMN(Dataset):
    """The statically binarised Omniglot of Bartunov and Vetrov (2018), for comparable likelihoods.

    Files: ``root/omniglot-gmn/train_small.npz`` (964 characters) and ``test_small.npz`` (659), with one
    uint8 array (20, 784) a character, paper = 255. They are not downloaded. Class names are those of
    :class:`metagen.data.omniglot.Omniglot`, so both take the same splits.
    """

    name = "omniglot_gmn"
    files: ClassVar[dict[str, int]] = {"train_small.npz": 964, "test_small.npz": 659}
    per_class: ClassVar[int] = 20

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "omniglot_background",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def sources(self) -> list[Path]:
        """Return the two files."""
        folder = self.root / "omniglot-gmn"
        if absent := [file for file in self.files if not (folder / file).is_file()]:
            raise MetagenError(
                f"{self.name}: {', '.join(absent)} not found in {folder} and there is no download: "
                f"{_ADVICE}, set data.root (or METAGEN_DATA), or use data=digits"
            )
        return [folder / file for file in self.files]

    def read(self) -> Bank:
        """Read and check the files."""
        images, names = [], []
        for path in self.sources():
            drawings = self._drawings(path)
            for name in sorted(drawings):
                images.append(255 - drawings[name].reshape(self.per_class, 28, 28))
                names.append(name)
        labels = torch.arange(len(names)).repeat_interleave(self.per_class)
        ink = pixels.resize(torch.cat(images), self.size)
        return Bank(self.name, ink, labels, tuple(names), torch.zeros(len(labels), dtype=torch.bool))

    def _drawings(self, path: Path) -> dict[str, Tensor]:
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key.partition("/")[2]: torch.from_numpy(file[key]) for key in file.files}
        except (
            OSError,
            ValueError,
            KeyError,
            AttributeError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            reason = " ".join(str(error).split())
            raise MetagenError(
                f"{path} (MD5 {idx.md5(path)}): expected a complete npz, found '{reason}'; {_ADVICE}"
            ) from error
        form = (self.per_class, 784)
        good = sum(tuple(a.shape) == form and a.dtype == torch.uint8 for a in arrays.values())
        if not len(arrays) == good == self.files[path.name]:
            raise MetagenError(
                f"{path}: expected {self.files[path.name]} characters of uint8 {form}, found {len(arrays)}, "
                f"{good} of that form; {_ADVICE}"
            )
        return arrays
