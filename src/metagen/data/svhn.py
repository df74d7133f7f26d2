"""Street View House Numbers: digits in photographs."""

from pathlib import Path

import numpy as np
import torch

from metagen.data import idx, pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.download import Remote, download
from metagen.ranges import Text

_PARTS = ("train", "test")


class SVHN(Dataset):
    """73,257 + 26,032 digits of 32x32 pixels in colour (Netzer et al. 2011); the 26,032 are held.

    Files: ``root/train_32x32.mat`` and ``root/test_32x32.mat``.
    """

    name = "svhn"
    default_channels = 3

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 32,
        split: str = "digits_789",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def sources(self) -> list[Path]:
        """Return the files, downloading those that are missing."""
        from torchvision import datasets

        listed = datasets.SVHN.split_list
        known = {listed[part][1]: listed[part] for part in _PARTS}
        missing = {
            f: Remote([url], md5) for f, (url, _, md5) in known.items() if not (self.root / f).is_file()
        }
        if missing:
            download(self.root, missing, self.name)
        return [self.root / file for file in known]

    def read(self) -> Bank:
        """Read and check the files."""
        from scipy.io import loadmat
        from torchvision import datasets

        images, labels = [], []
        for part, path in zip(_PARTS, self.sources(), strict=True):
            idx.check_md5(path, datasets.SVHN.split_list[part][2])
            content = loadmat(str(path))
            images.append(np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1)))
            labels.append(content["y"].astype(np.int64).reshape(-1) % 10)  # the files say 10 for a 0
        held = torch.arange(sum(map(len, labels))) >= len(labels[0])
        pictures = pixels.resize(torch.from_numpy(np.concatenate(images)), self.size)
        return Bank.build(self.name, pictures, torch.from_numpy(np.concatenate(labels)), "0123456789", held)
