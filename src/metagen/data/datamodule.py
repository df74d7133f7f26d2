"""The streams of a task as Lightning wants them."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from metagen.core.episode import Episode
from metagen.data.bank import Bank
from metagen.data.dataset import Dataset
from metagen.data.on_device import Sent, holds
from metagen.data.stream import EVERYTHING, EpisodeStream, Stream, Streams
from metagen.data.task import FewShot, Supervised

# Lightning warns of lengths that are wrong with several workers, and of there being no validation.
warnings.filterwarnings("ignore", ".*`IterableDataset` has `__len__` defined.*")
warnings.filterwarnings("ignore", ".*Total length of `list` across ranks is zero.*")


class _Batches(IterableDataset[Episode | Sent]):
    """The batches from ``position`` on, up to an epoch's end or ``stop``, and on from there next time.

    Args:
        stream: of batches by number.
        position: of the first one.
        stop: number of the batch to stop before.
        once: whether every pass begins at the first batch.
        share: of the tasks of a batch.
        taken: tells how many batches were trained on, where the next pass begins: a trainer fetches ahead.
        repeat: after so many batches the first ones come again; None: never.
        sends: whether the indices of a batch are given in its place.
    """

    def __init__(
        self,
        stream: Stream,
        position: int = 0,
        stop: int | None = None,
        once: bool = True,
        share: slice = EVERYTHING,
        taken: Callable[[], int] | None = None,
        repeat: int | None = None,
        sends: bool = False,
    ) -> None:
        self._batch = stream.sent if sends and isinstance(stream, EpisodeStream) else stream.batch
        self.stream, self.position, self.stop, self.once = stream, position, stop, once
        self.share, self.taken, self.repeat = share, taken, repeat

    def __iter__(self) -> Iterator[Episode | Sent]:
        if self.once:
            self.position = 0
        elif self.taken is not None:
            self.position = self.taken()
        epoch = self.stream.batches
        while self.stop is None or self.position < self.stop:
            if epoch == 0:
                return
            step = self.position % self.repeat if self.repeat else self.position
            self.position += 1
            yield self._batch(step, self.share)
            if epoch is not None and self.position % epoch == 0:
                return


class _Sized(_Batches):
    """Batches whose number is known, so that a progress bar has an end."""

    def __len__(self) -> int:
        left = None if self.stop is None else max(self.stop - (0 if self.once else self.position), 0)
        epoch = self.stream.batches
        if epoch is None:
            return left or 0
        return epoch if left is None else min(epoch, left)


class EpisodeData(LightningDataModule):
    """Batches of episodes for a Lightning trainer.

    Training yields batch ``first_step``, ``first_step + 1``, ... A trainer that goes on from a checkpoint
    counts the batches that it has trained on, and goes on with the episodes that the uninterrupted run would
    have had.

    Args:
        data: the data set, with the name of its class split.
        task: what is asked of it.
        test_data: another data set to test on.
        seed: the run's seed.
        steps: number of the training step to stop before; by default the end of an epoch, or never.

    Attributes:
        bank, test_bank, streams: what :meth:`setup` loads (``test_bank`` is ``bank`` without test_data).
        first_step: number of the first training batch of a training from its start.
        overfit: how many training batches are repeated; None where they go on.
    """

    bank: Bank
    test_bank: Bank
    streams: Streams

    def __init__(
        self,
        data: Dataset,
        task: FewShot | Supervised,
        test_data: Dataset | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        self.data, self.task, self.test_data = data, task, test_data
        self.seed, self.steps = seed, steps
        self.first_step = 0
        self.overfit: int | None = None
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Load the banks and build the streams, once.

        Raises:
            MetagenError: the data are missing or corrupt, or cannot give the task's episodes.
        """
        if self._ready:
            return
        self.bank = self.data.load(self.task.images_of_a_class)
        other = None if self.test_data is None else self.test_data.load(self.task.images_of_a_class)
        self.test_bank = other or self.bank
        self.streams = self.task.streams(self.bank, other, self.data.class_split(self.bank), self.seed)
        self._ready = True

    def train_dataloader(self) -> DataLoader[Any]:
        """Return training batches from ``first_step`` on, of several ranks each its share of the tasks."""
        stream = self.streams.train
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        kind = _Batches if stream.batches is None and self.steps is None else _Sized
        share = slice(rank, None, ranks)
        taken = self._taken if self.trainer else None
        first, last = self.first_step, self.steps
        return _loader(kind(stream, first, last, False, share, taken, self.overfit, self._sends()))

    def _taken(self) -> int:
        """Return the number of the batch that the trainer has not trained on yet."""
        assert self.trainer is not None
        return self.first_step + batches_done(self.trainer)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return the fixed validation batches, or no loader where there is no validation."""
        val = self.streams.val
        return [] if val is None else [_loader(_Sized(val, sends=self._sends()))]

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the fixed test batches."""
        return _loader(_Sized(self.streams.test, sends=self._sends()))

    def _sends(self) -> bool:
        """Return whether the trainer's GPU holds the images, so that a batch is sent as indices."""
        banks = [self.bank] if self.test_bank is self.bank else [self.bank, self.test_bank]
        return self.trainer is not None and holds(self.trainer.strategy.root_device, banks)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return a batch on ``device``; of one that is sent as indices, the images are gathered there."""
        if not isinstance(batch, Sent):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        episode = batch.to(device)
        return episode if self.trainer is None else self.trainer.precision_plugin.convert_input(episode)


def batches_done(trainer: Any) -> int:
    """Return how many batches a trainer has trained on: several a step where it accumulates gradients."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx) + 1


def _loader(batches: _Batches) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None, num_workers=0)  # to draw a batch costs less than to send it
