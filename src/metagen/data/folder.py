"""Anyone's images: a folder with one folder for each class."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from metagen.console import printable
from metagen.data import photographs, user_pictures
from metagen.data.bank import Bank
from metagen.data.bank_file import Labelled, Stream
from metagen.data.class_folders import warn_of_hidden
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.photographs import SUFFIXES, UNREAD, Fit
from metagen.data.split import Split, shares_of
from metagen.errors import MetagenError
from metagen.ranges import Text, checked

_LOG = logging.getLogger(__name__)
SHARES = "0.7/0.1/0.2"
_SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_TOGETHER = 256
_SHOWN = 20


class _File(NamedTuple):
    path: Path
    name: str  # of the class
    side: str  # train, val or test where the folder is laid out so, else ""


class Folder(Dataset):
    """``root/CLASS/IMAGE``: a class is a folder's path below ``root``, however deep.

    ``root/{train,val,test}/CLASS/IMAGE`` is taken as the split by class. Where these hold the same classes,
    the images outside of ``train`` are held out instead, and the split by class is drawn.

    Args:
        root: the folder.
        size: height and width of the images in the bank.
        split: the shares of the classes to train, validate and test on (see :meth:`Split.by_shares`), or the
            path of a JSON file or the name of a committed split, which go before ``root``'s own.
        cache: see :class:`Dataset`.
        channels: 3 for colour, 1 for grey.
        fit: how a picture becomes square: ``"crop"`` takes the middle, ``"stretch"`` all of it.
        ink: whether they are drawings, on paper of any colour: the ink is cut out and centred, 255 on 0, as
            ``metagen generate`` does with its pictures; ``channels`` is 1 then.
        skip_bad: whether to go on without files that cannot be read and without classes of too few images.

    Raises:
        MetagenError: an argument is of the wrong type or out of range.
    """

    default_channels = 3

    @checked
    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = SHARES,
        cache: str | None = None,
        channels: ImageChannels | None = None,
        fit: Fit = "crop",
        ink: bool = False,
        skip_bad: bool = False,
    ) -> None:
        super().__init__(root, size, split, cache, channels)
        if ink and self.channels != 1:
            raise MetagenError("data.ink=true is for drawings, which have one channel: set data.channels=1")
        self.fit, self.ink, self.skip_bad = fit, ink, skip_bad
        self.name = re.sub(r"[^\w.-]+", "_", self.root.absolute().name) or "folder"
        self._least, self._found, self._told = 1, list[_File](), False

    def params(self) -> dict[str, Any]:
        """Return how pictures are read, and the names of all files."""
        names = [str(file.path.relative_to(self.root)) for file in self.files()]
        return {"fit": self.fit, "ink": self.ink, "skip_bad": self.skip_bad, "files": names}

    def sources(self) -> list[Path]:
        """Return the image files."""
        return [file.path for file in self.files()]

    def files(self) -> list[_File]:
        """Return the image files in the order of their classes.

        Raises:
            MetagenError: there is no such folder, or no class in it.
        """
        if self._found:
            return self._found
        if not self.root.is_dir():
            raise MetagenError(f"data.root={self.root} is no folder: name the one that holds your classes")
        found = [path for path in _walk(self.root) if path.suffix.lower() in SUFFIXES | UNREAD]
        loose = [path for path in found if path.parent == self.root]
        if loose:
            raise MetagenError(
                f"{self.root} must hold one folder per class, but {loose[0].name} lies directly in it: "
                f"move it to {self.root}/CLASS/{loose[0].name}"
            )
        if not found:
            raise MetagenError(
                f"data.root={self.root} holds no images: name the folder of your classes by data.root=DIR; "
                f"expected DIR/CLASS/*.png (or {', '.join(sorted(SUFFIXES))})"
            )
        parts = [path.relative_to(self.root).parts for path in found]
        tops = {part[0] for part in parts}
        laid = "train" in tops and tops <= _SIDES.keys() and all(len(part) > 2 for part in parts)
        files = [
            _File(path, "/".join(part[1:-1]), _SIDES[part[0]])
            if laid
            else _File(path, "/".join(part[:-1]), "")
            for path, part in zip(found, parts, strict=True)
        ]
        self._found = sorted(files, key=lambda file: (file.name, file.side != "train", file.side))
        return self._found

    def load(self, least: int = 1) -> Bank:
        """Return the bank; see :meth:`Dataset.load`.

        Raises:
            MetagenError: also a file that cannot be read, or a class with fewer images than ``least``, all in
                one message; with ``skip_bad`` only where no class is left.
        """
        self._least, self._found, self._told = least, [], False
        bank = super().load(least)
        warn_of_hidden(self.root)
        if not self._told:  # it was in the cache
            self._complain([], dict(zip(bank.names, bank.counts.tolist(), strict=True)))
        return bank

    def class_split(self, bank: Bank) -> Split:
        """Return the split of the JSON file, of the folder, or by shares, without too small classes."""
        sides = self._sides()
        drawn = shares_of(self.split)
        counts = zip(bank.names, bank.counts.tolist(), strict=True)
        enough = [name for name, count in counts if count >= self._least]
        if drawn is None:
            return super().class_split(bank)
        if sides is None:
            split = Split.by_shares(enough, drawn)
        else:
            every = (sides.train, sides.val, sides.test)
            split = Split(*(tuple(name for name in side if name in enough) for side in every))
        if not split.test or not split.train:
            raise MetagenError(
                f"{self.name}: data.split={self.split} leaves {len(split.train)} of {len(enough)} "
                f"classes to train on and {len(split.test)} to test on: name them, as in "
                f"task.test_classes=['{sorted(enough)[-1] if enough else 'CLASS'}'], or give a JSON file"
            )
        return split

    def stream(self) -> Stream:
        """Yield the images class by class, decoded in several threads."""
        files, bad, kept = self.files(), [], []
        with ThreadPoolExecutor() as pool:
            bar = tqdm(
                total=len(files),
                desc=f"reading {printable(self.name)}",
                unit="image",
                disable=None,
                leave=False,
            )
            for some in _batched(files, _TOGETHER):
                results = list(pool.map(self._read, some))
                bar.update(len(some))
                good = [(f, x) for f, x in zip(some, results, strict=True) if isinstance(x, Tensor)]
                bad += [
                    (f.path, str(x)) for f, x in zip(some, results, strict=True) if not isinstance(x, Tensor)
                ]
                kept += [file for file, _ in good]
                if good:
                    yield torch.stack([x for _, x in good])
            bar.close()
        counts = dict.fromkeys((file.name for file in files), 0)
        for file in kept:
            counts[file.name] += 1
        self._complain(bad, counts)
        names = tuple(name for name, count in counts.items() if count)
        number = {name: index for index, name in enumerate(names)}
        both = self._sides() is None
        held = [both and file.side not in ("", "train") for file in kept]
        return Labelled(torch.tensor([number[file.name] for file in kept]), names, torch.tensor(held))

    def _read(self, file: _File) -> Tensor | MetagenError:
        try:
            if not self.ink:
                return photographs.read(file.path, self.size, self.channels, self.fit)
            return torch.from_numpy(user_pictures.read_image(file.path, self.size, name="it"))[None]
        except MetagenError as error:
            return error

    def _sides(self) -> Split | None:
        """Return the split by class that the folder itself is laid out in, or None."""
        names: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
        for file in self.files():
            if not file.side:
                return None
            names[file.side].add(file.name)
        others = names["val"] | names["test"]
        both = names["train"] & others
        if not both:
            return Split(*(tuple(sorted(side)) for side in names.values()))
        if others <= names["train"]:
            return None
        raise MetagenError(
            f"{self.root}: {_few(sorted(both))} are in train and in val or test, other classes are not: "
            f"either all classes of val and test are in train, too (their images are held out), or none"
        )

    def _complain(self, bad: Sequence[tuple[Path, str]], counts: dict[str, int]) -> None:
        """Say which files and classes cannot be used: in an error, or in a warning if they are skipped."""
        scarce = [f"{name} ({count})" for name, count in counts.items() if count < self._least]
        texts, self._told = list[str](), True
        if bad:
            listed = [f"{path.relative_to(self.root)} ({reason})" for path, reason in bad]
            texts.append(f"{len(bad)} files cannot be read: {_few(listed)}")
        if scarce:
            texts.append(f"{len(scarce)} classes have fewer than {self._least} images: {_few(scarce)}")
        if not texts:
            return
        if len(scarce) == len(counts):
            raise MetagenError(
                f"{self.root}: {'; '.join(texts)}; no class is left: add images, or ask for fewer of a class "
                f"(task.shots + task.queries, at test task.test_shots + task.test_queries)"
            )
        if not self.skip_bad:
            raise MetagenError(
                f"{self.root}: {'; '.join(texts)}; mend or remove them, or set data.skip_bad=true to go on "
                f"without"
            )
        _LOG.warning("%s: %s; it goes on without them", self.root, "; ".join(texts))


def _walk(root: Path) -> Iterator[Path]:
    """Yield the visible files below a folder in the order of their names; links are followed, circles not."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        seen.add(real)
        yield from (Path(folder, file) for file in sorted(files) if not file.startswith("."))


def _batched(files: Sequence[_File], count: int) -> Iterator[list[_File]]:
    rest = iter(files)
    while some := list(islice(rest, count)):
        yield some


def _few(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
