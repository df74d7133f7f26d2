"""The base class of data sets: their arguments, their cache, the order of their steps."""

import hashlib
import inspect
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from metagen.data import cache as caches
from metagen.data import pixels
from metagen.data.bank import Bank
from metagen.data.bank_file import Labelled, Stream
from metagen.data.split import Split, shares_of
from metagen.files import expanded
from metagen.ranges import Text, checked

ImageSide = Annotated[int, Ge(8), Le(128)]
"""Of an image in pixels."""
ImageChannels = Literal[1, 3]
"""Grey, or colour."""
_PART = 4096


class Dataset:
    """A data set that becomes a :class:`Bank`.

    What is found under ``root`` is used, and what is missing is downloaded into it.

    Args:
        root: the folder with the data, in torchvision's layout.
        size: height and width of the images in the bank.
        split: name of a committed class split, the path of a JSON file (see :class:`Split`), or the shares of
            the classes to train, validate and test on, such as ``0.7/0.1/0.2`` (see :meth:`Split.by_shares`).
        cache: folder of the cached bank; by default METAGEN_CACHE, else ~/.cache/metagen.
        channels: 1 for grey, 3 for colour; images that are not so become so.

    Raises:
        MetagenError: an argument is of the wrong type or out of range.
    """

    name: str
    default_channels: ClassVar[int] = 1

    @checked
    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        if shares_of(split) is None:
            Split.load(split)
        self.root = expanded(root)
        self.size = size
        self.split = split
        self.cache = cache
        self.channels: int = self.default_channels if channels is None else channels

    def load(self, least: int = 1) -> Bank:
        """Return the bank, from the cache where that is valid; its images may be mapped from there.

        Args:
            least: how many images of a class are asked for.

        Raises:
            MetagenError: a file is corrupt, or missing and not to be had.
        """
        sources = self.sources()
        params = {"name": self.name, "size": self.size, "channels": self.channels} | self.params()
        place = repr((sorted(params.items()), str(self.root.absolute()) if sources else ""))
        digest = hashlib.sha256(place.encode()).hexdigest()[:12]
        key = caches.fingerprint(params | {"code": _code(type(self))}, sources)
        return caches.cached(caches.folder(self.cache), self.name, key, digest, self.stream)

    @property
    def committed(self) -> bool:
        """Whether the split by class is in a file, and not drawn or read from the data."""
        return shares_of(self.split) is None

    def class_split(self, bank: Bank) -> Split:
        """Return which classes of the bank are trained on, validated on and tested on."""
        shares = shares_of(self.split)
        return Split.load(self.split) if shares is None else Split.by_shares(bank.names, shares)

    def stream(self) -> Stream:
        """Yield the images of the bank in the order of their classes, with as many channels as asked for.

        A data set that is larger than memory overrides this one and reads its images bit by bit.
        """
        bank = self.read()
        for part in bank.images.split(_PART):
            yield pixels.channeled(part, self.channels)
        return Labelled(bank.labels, bank.names, bank.held)

    def params(self) -> dict[str, Any]:
        """Return what else the bank depends on, e.g. a library's version (plain values)."""
        return {}

    def sources(self) -> list[Path]:
        """Return the files that the bank is read from, after downloading what is missing."""
        raise NotImplementedError

    def read(self) -> Bank:
        """Build the bank from the sources, checking them."""
        raise NotImplementedError


def _code(kind: type) -> str:
    """Return a checksum of the files that a data set's own classes are written in, as they are now.

    A bank that another ``read`` made is stale. A class of no file counts by its ``read``.
    """
    digest = hashlib.sha256()
    for one in kind.__mro__[: kind.__mro__.index(Dataset)]:
        try:
            digest.update(Path(inspect.getfile(one)).read_bytes())
        except (TypeError, OSError):
            code = getattr(vars(one).get("read"), "__code__", None)
            digest.update(repr(code and (code.co_code, code.co_consts)).encode())
    return digest.hexdigest()
