"""What the data sets share: the arguments, the cache, the order of the steps."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from metagen.data import cache as caches
from metagen.data.bank import Bank
from metagen.data.split import Split
from metagen.errors import MetagenError


class Dataset:
    """A data set that becomes a :class:`Bank`.

    What is found under ``root`` is used, and what is missing is downloaded into it.

    Args:
        root: the folder with the data, in torchvision's layout.
        size: height and width of the images in the bank.
        split: name of a committed class split, or the path of a JSON file (see :class:`Split`).
        cache: folder of the cached bank; by default METAGEN_CACHE, else ~/.cache/metagen.

    Raises:
        MetagenError: an argument is of the wrong type or out of range.
    """

    name: ClassVar[str]

    def __init__(self, root: str = "data", size: int = 28, split: str = "", cache: str | None = None) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or not 4 <= size <= 256:
            raise MetagenError(f"data.size is {size!r}: expected an integer from 4 to 256; set data.size=28")
        if not isinstance(root, str | Path) or not str(root):
            raise MetagenError(f"data.root is {root!r}: expected a folder; set data.root or METAGEN_DATA")
        Split.load(split)
        self.root = Path(root).expanduser()
        self.size = size
        self.split = split
        self.cache = cache

    def load(self) -> Bank:
        """Return the bank, from the cache where that is valid.

        Raises:
            MetagenError: a file is corrupt, or missing and not to be had.
        """
        sources = self.sources()
        params = {"name": self.name, "size": self.size} | self.params()
        place = repr((sorted(params.items()), str(self.root.absolute())))
        digest = hashlib.sha256(place.encode()).hexdigest()[:12]
        path = caches.folder(self.cache) / f"{self.name}-{digest}.npz"
        return caches.cached(path, caches.fingerprint(params, sources), self.read)

    def params(self) -> dict[str, Any]:
        """Return what else the bank depends on, e.g. a library's version (plain values)."""
        return {}

    def sources(self) -> list[Path]:
        """Return the files that the bank is read from, after downloading what is missing."""
        raise NotImplementedError

    def read(self) -> Bank:
        """Build the bank from the sources, checking them."""
        raise NotImplementedError
