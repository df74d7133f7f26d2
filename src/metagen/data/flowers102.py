"""Oxford's 102 categories of flowers."""

import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from metagen.data import idx, photographs
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.download import Remote, download
from metagen.errors import MetagenError
from metagen.ranges import Text


class Flowers102(Dataset):
    """102 species in 40 to 258 photographs each, cropped to a square (Nilsback and Zisserman 2008).

    Files: ``root/flowers-102/102flowers.tgz``, read without extracting it, or its folder ``jpg``, and
    ``imagelabels.mat``. None is held: the published parts are of images, the split here is by class.
    """

    name = "flowers102"
    default_channels = 3

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 64,
        split: str = "0.7/0.1/0.2",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def sources(self) -> list[Path]:
        """Return the files, downloading those that are missing."""
        from torchvision.datasets import Flowers102 as Tv

        folder, known = self.root / "flowers-102", Tv._file_dict
        jpg = folder / "jpg"
        wanted = [known["label"]] if jpg.is_dir() else [known["label"], known["image"]]
        missing = {
            file: Remote([Tv._download_url_prefix + file], md5)
            for file, md5 in wanted
            if not (folder / file).is_file()
        }
        if missing:
            download(folder, missing, self.name)
        images = sorted(jpg.glob("*.jpg")) if jpg.is_dir() else [folder / known["image"][0]]
        return [folder / known["label"][0], *images]

    def read(self) -> Bank:
        """Read and check the files."""
        from scipy.io import loadmat
        from torchvision.datasets import Flowers102 as Tv

        table, *paths = self.sources()
        idx.check_md5(table, Tv._file_dict["label"][1])
        labels = torch.from_numpy(loadmat(str(table))["labels"].reshape(-1).astype("int64")) - 1
        images = list(self._pictures(paths))
        if len(images) != len(labels):
            raise MetagenError(
                f"{paths[0].parent}: expected {len(labels)} photographs, found {len(images)}: delete the "
                f"folder, and it will be downloaded again"
            )
        held = torch.zeros(len(labels), dtype=torch.bool)
        return Bank.build(self.name, torch.stack(images), labels, Tv.classes, held)

    def _pictures(self, paths: list[Path]) -> Iterator[Tensor]:
        """Yield the photographs in the order of their numbers."""
        if paths[0].suffix == ".jpg":
            yield from (photographs.read(path, self.size, 3) for path in paths)
            return
        from torchvision.datasets import Flowers102 as Tv

        idx.check_md5(paths[0], Tv._file_dict["image"][1])
        try:
            with tarfile.open(paths[0]) as archive:
                members = sorted(archive.getnames())
                for name in (name for name in members if name.endswith(".jpg")):
                    file = archive.extractfile(name) or io.BytesIO()
                    yield photographs.square(Image.open(io.BytesIO(file.read())), self.size, 3)
        except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
            raise MetagenError(f"{paths[0]}: {error}: delete it, and it will be downloaded again") from error
