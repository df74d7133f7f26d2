"""Omniglot: handwritten characters of fifty alphabets."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from metagen.data import idx, pixels
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.download import Remote, download
from metagen.errors import MetagenError
from metagen.ranges import Text, checked

_MEMBER = re.compile(r"(?:.*/)?([^/]+/character\d+)/[^/]+\.png")


class Omniglot(Dataset):
    """1,623 characters, 20 drawings of each, 105x105 pixels (Lake, Salakhutdinov, Tenenbaum 2015).

    Files: ``root/omniglot-py/images_background.zip`` and ``images_evaluation.zip``, read without
    extracting them, or the extracted folders of these names. A class is ``Alphabet/characterNN``;
    the alphabets of the two parts are disjoint. There is no held part: its test set is classes.

    Args:
        root, size, split, cache, channels: see :class:`Dataset`.
        framed: scale and centre every drawing as MNIST does its digits (:func:`metagen.data.pixels.framed`).
    """

    name = "omniglot"
    parts: ClassVar[dict[str, int]] = {"images_background": 964, "images_evaluation": 659}
    per_class: ClassVar[int] = 20

    @checked
    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "omniglot_background",
        cache: str | None = None,
        framed: bool = False,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)
        self.framed = framed

    def params(self) -> dict[str, Any]:
        """Return whether the drawings are framed."""
        return {"framed": self.framed}

    @property
    def folder(self) -> Path:
        """The folder of the archives."""
        return self.root / "omniglot-py"

    def _zip(self, part: str) -> Path:
        return self.folder / f"{part}.zip"

    def sources(self) -> list[Path]:
        """Return the files, downloading those that are missing."""
        absent = [p for p in self.parts if not self._zip(p).is_file() and not (self.folder / p).is_dir()]
        if absent:
            from torchvision.datasets import Omniglot as Tv

            remotes = {
                f"{part}.zip": Remote([f"{Tv.download_url_prefix}/{part}.zip"], Tv.zips_md5[part])
                for part in absent
            }
            download(self.folder, remotes, self.name)
        paths: list[Path] = []
        for part in self.parts:
            archive = self._zip(part)
            paths += [archive] if archive.is_file() else sorted((self.folder / part).rglob("*.png"))
        return paths

    def read(self) -> Bank:
        """Read and check the files."""
        images: list[np.ndarray] = []
        labels: list[int] = []
        names: list[str] = []
        for part, classes in self.parts.items():
            drawings = self._drawings(part, classes)
            for name in sorted(drawings):
                labels += [len(names)] * len(drawings[name])
                images += drawings[name]
                names.append(name)
        drawn = torch.from_numpy(np.stack(images))
        ink = (pixels.framed if self.framed else pixels.resize)(drawn, self.size)
        held = torch.zeros(len(labels), dtype=torch.bool)
        return Bank(self.name, ink, torch.tensor(labels), tuple(names), held)

    def _drawings(self, part: str, classes: int) -> dict[str, list[np.ndarray]]:
        source = self._zip(part) if self._zip(part).is_file() else self.folder / part
        found: dict[str, list[np.ndarray]] = {}
        try:
            for name, data in _files(source):
                if match := _MEMBER.fullmatch(name):
                    paper = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
                    found.setdefault(match[1], []).append(255 - paper)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, SyntaxError) as error:
            raise MetagenError(
                f"{source}: {' '.join(str(error).split())}; {_advice(source, part)}"
            ) from error
        total = sum(map(len, found.values()))
        if len(found) != classes or any(len(drawings) != self.per_class for drawings in found.values()):
            raise MetagenError(
                f"{source}: expected {classes} characters and {classes * self.per_class} images, found "
                f"{len(found)} and {total}; {_advice(source, part)}"
            )
        return found


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the PNG files in an archive or a folder, in the order of their names."""
    if source.is_dir():
        for path in sorted(source.rglob("*.png")):
            yield path.relative_to(source.parent).as_posix(), path.read_bytes()
        return
    with zipfile.ZipFile(source) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".png") and not name.startswith("__MACOSX"):
                yield name, archive.read(name)


def _advice(source: Path, part: str) -> str:
    if source.is_dir():
        return "it is incomplete: delete it, and it will be downloaded again"
    from torchvision.datasets import Omniglot as Tv

    return (
        f"the official archive has MD5 {Tv.zips_md5[part]}, this one {idx.md5(source)}: "
        f"it is corrupt; delete it, and it will be downloaded again"
    )
