"""The handwritten digits that ship inside scikit-learn: no file, no download."""

from pathlib import Path
from typing import Any

import torch

from metagen.data import pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.ranges import Text


class Digits(Dataset):
    """1,797 digits of 8x8 pixels and 17 grey levels (Alpaydin and Kaynak 1998), resized.

    Scikit-learn has the published test part only, so every fifth image of each class counts as held.
    ``root`` is not used.
    """

    name = "digits"

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "digits_789",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def params(self) -> dict[str, Any]:
        """Return the version of scikit-learn."""
        import sklearn

        return {"sklearn": sklearn.__version__}

    def sources(self) -> list[Path]:
        """Return no file."""
        return []

    def read(self) -> Bank:
        """Read the images from scikit-learn."""
        from sklearn.datasets import load_digits

        data = load_digits()
        labels = torch.from_numpy(data.target).long()
        images = torch.from_numpy(data.images).mul(255 / 16).round().byte()
        order = labels.argsort(stable=True)
        images, labels = pixels.resize(images[order], self.size), labels[order]
        counts = torch.bincount(labels)
        rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels]
        return Bank(self.name, images, labels, tuple("0123456789"), rank % 5 == 4)
