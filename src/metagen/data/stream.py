"""Batches by number: what a task gives to training, validation and test."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from metagen.core.episode import Episode, Shots
from metagen.data import pixels
from metagen.data.bank import Bank
from metagen.data.on_device import Sent
from metagen.data.sampler import STAGES, EpisodeIndices, EpisodeSampler
from metagen.functional import rng

EVERYTHING = slice(None)
"""The share of a batch's tasks that one process alone works off: all."""


class Stream(Protocol):
    """A sequence of batches of episodes, each a pure function of its number.

    batches:   how many there are, of an epoch if they repeat; None if they never end.
    bank:      the images.
    classes:   names of the P (pseudo-)classes that ``Episode.classes`` counts.
    class_ids: (P,) the bank's label of each.
    seed:      what the batches depend on beside their number; None if on nothing.
    """

    batches: int | None
    bank: Bank
    classes: tuple[str, ...]
    class_ids: Tensor
    seed: int | None

    def batch(self, step: int, share: slice = EVERYTHING) -> Episode:
        """Return batch number ``step``, with a leading T on every field, or a share of its tasks."""
        ...

    def audit(self) -> dict[str, np.ndarray]:
        """Return the data set, classes and image indices of all batches, for anyone to check."""
        ...

    def fingerprint(self) -> str:
        """Return the sha256 of the drawn classes and image indices."""
        ...


class Streams(NamedTuple):
    """The three streams of a task; ``val`` is None where there is no validation.

    split: names of the train, val and test classes, all overrides applied; without val classes,
           validation has the training classes. With other test data, "test" names classes of those.
    """

    train: Stream
    val: Stream | None
    test: Stream
    split: dict[str, tuple[str, ...]]


AHEAD = 512
"""Episodes that are drawn at once: the draw of one costs as many operations as that of many."""


class EpisodeStream:
    """Batch b holds the episodes b T ... (b+1) T - 1, and none from ``total`` on."""

    def __init__(self, sampler: EpisodeSampler, batch: int, total: int | None = None) -> None:
        self.sampler, self.size, self.total = sampler, batch, total
        self.batches: int | None = None if total is None else -(-total // batch)
        self.bank = sampler.bank
        self.seed: int | None = sampler.seed
        self.classes, self.class_ids = sampler.names, sampler.class_ids
        self._ahead = max(1, AHEAD // batch)
        self._first, self._drawn = -1, sampler.draw(torch.arange(0))

    def __len__(self) -> int:
        if self.batches is None:
            raise TypeError("a stream of training episodes never ends")
        return self.batches

    def indices(self, step: int, steps: int = 1) -> Tensor:
        """Return the numbers of the episodes in batch ``step``, or in that and the following ones."""
        stop = (step + steps) * self.size
        return torch.arange(step * self.size, stop if self.total is None else min(stop, self.total))

    def batch(self, step: int, share: slice = EVERYTHING) -> Episode:
        """Return the episodes of batch ``step``, or a share of them."""
        return self.sampler.gather(self._drawn_of(step, share))

    def sent(self, step: int, share: slice = EVERYTHING) -> Sent:
        """Return batch ``step``, or a share of it, as what is sent of it to a GPU that has the images."""
        return Sent(self.sampler, self._drawn_of(step, share))

    def _drawn_of(self, step: int, share: slice) -> EpisodeIndices:
        if self.batches is not None and not 0 <= step < self.batches:
            raise IndexError(step)
        first = step - step % self._ahead
        if first != self._first:
            self._first, self._drawn = first, self.sampler.draw(self.indices(first, self._ahead))
        part = slice((step - first) * self.size, (step - first + 1) * self.size)
        return EpisodeIndices(*(values[part][share] for values in self._drawn))

    def audit(self) -> dict[str, np.ndarray]:
        """Return what every episode is made of.

        ``classes`` (E, N) are the bank's labels, ``symmetry`` (E, N) how their images were turned,
        ``support`` (E, N, K) and ``query`` (E, N, Q) indices of the bank's images; ``dataset``,
        ``class_names`` (C,) and ``sha256`` say which bank.
        """
        draw = self.sampler.draw(torch.arange(self._total()))
        columns = {
            "classes": self.class_ids[draw.classes],
            "symmetry": self.sampler.symmetry[draw.classes],
            "support": draw.support,
            "query": draw.query,
        }
        return {name: column.numpy() for name, column in columns.items()} | _origin(self.bank)

    def fingerprint(self) -> str:
        """Return the sha256 of the drawn classes and image indices of all episodes."""
        return self.sampler.fingerprint(torch.arange(self._total()))

    def _total(self) -> int:
        if self.total is None:
            raise TypeError("a stream of training episodes never ends")
        return self.total


class ImageStream:
    """Single images in batches of B, as one task (T = 1) of one row (N = 1) without support.

    query: x (1, 1, B, C, H, W), y (1, 1, B), the position in ``classes``; ``Episode.classes`` is (1, C).

    Args:
        bank: the images.
        classes: names of the C classes, in the order of the labels y.
        rows: (M,) which images.
        batch: B; the last batch of an epoch may be smaller.
        seed: shuffles every epoch anew; None keeps the order, and there is one epoch.
        stage: train, val or test.
    """

    def __init__(
        self, bank: Bank, classes: Sequence[str], rows: Tensor, batch: int, seed: int | None, stage: str
    ) -> None:
        self.bank, self.classes, self.rows, self.size, self.seed = bank, tuple(classes), rows, batch, seed
        self.batches: int | None = -(-len(rows) // batch)
        self.class_ids = torch.tensor([bank.names.index(name) for name in classes])
        self._position = torch.full((len(bank.names),), -1)
        self._position[self.class_ids] = torch.arange(len(self.classes))
        self._key = rng.key(seed or 0, STAGES[stage])
        self._epoch, self._order = -1, torch.arange(len(rows))

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def batch(self, step: int, share: slice = EVERYTHING) -> Episode:
        """Return batch ``step``, counted over all epochs; its one task has no shares."""
        epoch, index = divmod(step, len(self))
        if self.seed is not None and epoch != self._epoch:
            m = len(self.rows)
            self._epoch, self._order = epoch, rng.subset(rng.fold_in(self._key, epoch), m, m)
        rows = self.rows[self._order[index * self.size : (index + 1) * self.size]]
        x = pixels.unit(self.bank.images[rows])[None, None]
        y = self._position[self.bank.labels[rows]][None, None]
        key = rng.fold_in(self._key, torch.tensor([step]))
        support = Shots(x[:, :, :0], y[:, :, :0], rng.fold_in(key, 0))
        query = Shots(x, y, rng.fold_in(key, 1))
        return Episode(support, query, torch.arange(len(self.classes))[None])

    def audit(self) -> dict[str, np.ndarray]:
        """Return the indices ``query`` (M,) of the images in an epoch, and which bank they are in."""
        return {"query": self.rows.numpy(), "classes": self.class_ids.numpy()} | _origin(self.bank)

    def fingerprint(self) -> str:
        """Return the sha256 of the classes and the image indices."""
        digest = hashlib.sha256(self.class_ids.numpy().data)
        digest.update(self.rows.numpy().data)
        return digest.hexdigest()


def _origin(bank: Bank) -> dict[str, np.ndarray]:
    named = {"dataset": bank.name, "class_names": bank.names, "sha256": bank.sha256}
    return {name: np.array(value) for name, value in named.items()}
