"""CIFAR-100, and by its class splits CIFAR-FS, FC100 and that of few-shot diffusion models."""

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metagen.data import idx, pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.download import Remote, download
from metagen.errors import MetagenError
from metagen.ranges import Text


class CIFAR100(Dataset):
    """100 classes of 600 photographs of 32x32 pixels in colour (Krizhevsky 2009); none is held.

    Files: ``root/cifar-100-python.tar.gz``, read without extracting it, or the folder ``cifar-100-python``.
    ``split=cifar_fs`` (64/16/20 classes) is CIFAR-FS (Bertinetto et al. 2019), ``split=fc100`` (60/20/20 by
    superclasses) FC100 (Oreshkin et al. 2018), also that of few-shot diffusion models (Giannone et al. 2022).
    """

    name = "cifar100"
    default_channels = 3

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 32,
        split: str = "cifar_fs",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def _torchvision(self) -> Any:
        from torchvision import datasets

        return datasets.CIFAR100

    def _checksums(self) -> dict[str, str]:
        tv = self._torchvision()
        return dict([*tv.train_list, *tv.test_list, (tv.meta["filename"], tv.meta["md5"])])

    def sources(self) -> list[Path]:
        """Return the archive, or the extracted files, after downloading what is missing."""
        tv = self._torchvision()
        extracted = [self.root / tv.base_folder / file for file in self._checksums()]
        archive = self.root / tv.filename
        if archive.is_file() or not all(path.is_file() for path in extracted):
            if not archive.is_file():
                download(self.root, {tv.filename: Remote([tv.url], tv.tgz_md5)}, self.name)
            return [archive]
        return extracted

    def read(self) -> Bank:
        """Read and check the files."""
        tv, contents = self._torchvision(), self._contents()
        # What is unpickled has torchvision's checksum: it is the published file.
        parts = [pickle.loads(contents[file], encoding="latin1") for file in ("train", "test")]
        names = pickle.loads(contents[tv.meta["filename"]], encoding="latin1")[tv.meta["key"]]
        images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        labels = torch.tensor([label for part in parts for label in part["fine_labels"]])
        held = torch.zeros(len(labels), dtype=torch.bool)
        return Bank.build(self.name, pixels.resize(torch.from_numpy(images), self.size), labels, names, held)

    def _contents(self) -> dict[str, bytes]:
        """Return the bytes of the three files by their names, after checking them."""
        tv, paths = self._torchvision(), self.sources()
        if len(paths) > 1:
            for path, md5 in zip(paths, self._checksums().values(), strict=True):
                idx.check_md5(path, md5)
            return {path.name: path.read_bytes() for path in paths}
        idx.check_md5(paths[0], tv.tgz_md5)
        with tarfile.open(paths[0]) as archive:
            return {
                file: _member(archive, f"{tv.base_folder}/{file}", paths[0]) for file in self._checksums()
            }


def _member(archive: tarfile.TarFile, name: str, path: Path) -> bytes:
    try:
        found = archive.extractfile(name) or io.BytesIO()
        return found.read()
    except (KeyError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise MetagenError(
            f"{path}: expected {name} in it, found {error}: delete it, then run again"
        ) from error
