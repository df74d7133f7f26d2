"""Any map-style data set of (image, label) as a bank: torchvision's, and everybody's own."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from metagen.console import printable
from metagen.data import bank_file, photographs
from metagen.data import cache as caches
from metagen.data.bank import Bank
from metagen.data.bank_file import Labelled, Stream
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.data.photographs import Fit
from metagen.errors import MetagenError
from metagen.ranges import Text, checked

_TOGETHER = 256


class TorchDataset(Dataset):
    """A data set with ``len`` and items (image, label), such as any map-style ``torch.utils.data.Dataset``.

    Images are PIL's, arrays (H, W) or (H, W, C), or tensors (C, H, W), in bytes or in [0, 1], of any size;
    labels are integers or words. Classes are named by the data set's ``classes`` where it has them.

    Args:
        dataset: the data set, by its ``_target_``.
        held: another one of the same classes whose images are held out, such as the test part.
        root, size, split, cache, channels: see :class:`Dataset`; ``root`` is not used.
        fit: how an image becomes square: ``"crop"`` takes the middle, ``"stretch"`` all of it.
        version: any word; the bank is kept in the cache until you change it. By default the data set is read
            anew in every run, for nothing tells whether it has changed.

    Raises:
        MetagenError: an argument is of the wrong type or out of range.
    """

    name = "torch_dataset"
    default_channels = 3

    @checked
    def __init__(
        self,
        dataset: Any,
        held: Any = None,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "0.7/0.1/0.2",
        cache: str | None = None,
        channels: ImageChannels | None = None,
        fit: Fit = "crop",
        version: str | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)
        for part in (dataset, held):
            items = hasattr(part, "__len__") and hasattr(part, "__getitem__")
            if part is not None and (not items or isinstance(part, str | list | Mapping)):
                raise MetagenError(
                    f"data.dataset is a {type(part).__name__}: expected a map-style data set, with a length "
                    f"and items"
                )
        self.parts = [dataset] if held is None else [dataset, held]
        self.fit, self.version = fit, version
        self.name = type(dataset).__name__.lower()

    def sources(self) -> list[Path]:
        """Return no file."""
        return []

    def params(self) -> dict[str, Any]:
        """Return what names the bank in the cache."""
        kinds = [f"{type(part).__module__}.{type(part).__qualname__} {part!r}" for part in self.parts]
        return {"version": self.version, "fit": self.fit, "datasets": kinds}

    def load(self, least: int = 1) -> Bank:
        """Return the bank; see :meth:`Dataset.load`."""
        if self.version is not None:
            return super().load(least)
        return caches.cached(caches.folder(self.cache), self.name, None, "", self.stream)

    def stream(self) -> Stream:
        """Yield the images in the order of their classes."""
        labels = [_labels(part) for part in self.parts]
        names, numbers = _named(self.parts[0], np.concatenate(labels))
        held = np.repeat([False, True][: len(labels)], [len(each) for each in labels])
        order = np.argsort(numbers, kind="stable")
        bar = tqdm(order, desc=f"reading {printable(self.name)}", unit="image", disable=None, leave=False)
        yield from _stacked(self._image(int(row)) for row in bar)
        return Labelled(torch.from_numpy(numbers[order]), names, torch.from_numpy(held[order]))

    def _image(self, row: int) -> Tensor:
        part = 0 if row < len(self.parts[0]) else 1
        row -= part * len(self.parts[0])
        try:
            return photographs.square(
                photographs.picture(_item(self.parts[part], row)[0]), self.size, self.channels, self.fit
            )
        except MetagenError as error:
            raise MetagenError(f"{self.name}: image {row}: {error}") from error


def bank_of(
    dataset: Any,
    size: ImageSide | None = None,
    channels: ImageChannels | None = None,
    held: Any = None,
    fit: Fit = "crop",
) -> Bank:
    """Return the bank, in memory, of any map-style data set of (image, label).

    Args:
        dataset: see :class:`TorchDataset`.
        size: height and width; by default the shorter side of the first image, at most 128.
        channels: 1 or 3; by default those of the first image.
        held: another data set of the same classes, whose images are held out.
        fit: see :class:`TorchDataset`.

    Raises:
        MetagenError: items are no (image, label), or an argument is out of range.
    """
    source = TorchDataset(dataset, held, size=size or 28, channels=channels, fit=fit)
    if size is None or channels is None:
        first = photographs.picture(_item(dataset, 0)[0])
        source.size = size or min(*first.size, 128)
        source.channels = channels or (1 if first.mode in ("1", "L", "I", "F", "I;16") else 3)
    return bank_file.in_memory(source.name, source.stream())


def _stacked(images: Iterator[Tensor]) -> Iterator[Tensor]:
    some = []
    for image in images:
        some.append(image)
        if len(some) == _TOGETHER:
            yield torch.stack(some)
            some = []
    if some:
        yield torch.stack(some)


def _item(dataset: Any, row: int) -> Sequence[Any]:
    try:
        item = dataset[row]
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise MetagenError(
            f"item {row} of {type(dataset).__name__} cannot be had ({said}): expected (image, label)"
        ) from error
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) < 2:
        raise MetagenError(
            f"item {row} of {type(dataset).__name__} is a {type(item).__name__}: expected (image, label)"
        )
    return item


def _labels(dataset: Any) -> np.ndarray:
    """Return the labels: the data set's ``targets`` or ``labels`` if it has them, else those of all items."""
    count = len(dataset)
    if count == 0:
        raise MetagenError(f"{type(dataset).__name__} is empty: expected items (image, label)")
    transformed = getattr(dataset, "target_transform", None) is not None
    for name in () if transformed else ("targets", "labels", "_labels"):
        found = getattr(dataset, name, None)
        if found is not None and np.shape(found) == (count,):
            return np.asarray(found)
    labels = [_item(dataset, row)[1] for row in range(count)]
    plain = [
        label.item() if isinstance(label, Tensor | np.generic) and label.ndim == 0 else label
        for label in labels
    ]
    if not all(isinstance(label, int | str) for label in plain):
        wrong = next(label for label in plain if not isinstance(label, int | str))
        raise MetagenError(
            f"a label of {type(dataset).__name__} is a {type(wrong).__name__}: expected an integer or a word"
        )
    return np.asarray(plain)


def _named(dataset: Any, labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the classes that have images, and each image's number among them."""
    found, numbers = np.unique(labels, return_inverse=True)
    given = getattr(dataset, "classes", None)
    integers = np.issubdtype(found.dtype, np.integer)
    if integers and isinstance(given, Sequence) and found.min() >= 0 and found.max() < len(given):
        names = [str(given[int(label)]) for label in found]
        if len(set(names)) == len(names):
            return tuple(names), numbers.reshape(-1)
    return tuple(str(label) for label in found.tolist()), numbers.reshape(-1)
