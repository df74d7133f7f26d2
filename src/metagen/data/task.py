"""Tasks: few-shot episodes, or plain supervised learning."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from metagen.data.augment import Augmentation
from metagen.data.bank import Bank
from metagen.data.sampler import EpisodeSampler, Images
from metagen.data.split import Classes, Split, check_known, class_names
from metagen.data.stream import EpisodeStream, ImageStream, Stream, Streams
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.ranges import MANY, NonNegativeInt, PositiveInt, Probability, Seed, checked

_LOG = logging.getLogger(__name__)
_COUNTED = 3  # the word of the key that orders the training classes; the stages have 0, 1 and 2


class FewShot:
    """N-way K-shot episodes with Q queries.

    Training draws from the images that are not held; validation and test from the held images of
    their classes where the bank has any, else from all. Without validation classes, validation draws
    held images of the training classes. Test episodes depend on ``eval_seed``, not on the run's
    seed: runs with different seeds are judged on the same episodes.

    Args:
        kind: what a model must do, ``"generate"`` or ``"classify"``.
        ways, shots, queries: N, K, Q.
        batch: tasks of a training step.
        episodes, val_episodes: how many test and validation episodes.
        test_shots, test_queries: K and Q in test; by default ``shots`` and ``queries``.
        test_ways: N in test; by default ``ways``, or as many test classes as there are for a
            generator, which takes any number (in validation, too).
        eval_batch: episodes evaluated at a time.
        train_classes, val_classes, test_classes: override the split (see :meth:`Split.override`).
        train_count: how many of the training classes there are; None means all. They are the first of one
            random order that belongs to the run's seed, so that those of a smaller count are among them.
        symmetries, symmetries_eval: rotations and reflections as classes of their own.
        one_group_eval: whether the classes of a validation or test episode are of one group, such as an
            alphabet (:class:`metagen.data.sampler.EpisodeSampler`).
        one_drawer_eval: whether the i-th image is by the same drawer for all classes of such an episode.
        dilation: probability that the strokes of a training episode are thickened.
        binarize: ``"threshold"``, ``"bernoulli"`` or None.
        augment: random changes of the training images (:mod:`metagen.data.augment`).
        eval_seed: seed of the validation and test episodes.

    Raises:
        MetagenError: an argument is of the wrong type or out of range.
    """

    few_shot = True

    @property
    def images_of_a_class(self) -> int:
        """How many images of a class an episode takes."""
        return max(self.shots + self.queries, self.test_shots + self.test_queries)

    @checked
    def __init__(
        self,
        kind: Literal["generate", "classify"],
        ways: PositiveInt,
        shots: PositiveInt,
        queries: PositiveInt,
        batch: PositiveInt,
        episodes: PositiveInt = 200,
        val_episodes: NonNegativeInt = 50,
        test_shots: PositiveInt | None = None,
        test_queries: PositiveInt | None = None,
        test_ways: PositiveInt | None = None,
        eval_batch: PositiveInt = 10,
        train_classes: Classes | None = None,
        val_classes: Classes | None = None,
        test_classes: Classes | None = None,
        train_count: PositiveInt | None = None,
        symmetries: bool = True,
        symmetries_eval: bool = False,
        one_group_eval: bool = False,
        one_drawer_eval: bool = False,
        dilation: Probability = 0.0,
        binarize: Literal["threshold", "bernoulli"] | None = None,
        augment: Sequence[Augmentation] = (),
        eval_seed: Seed = 0,
    ) -> None:
        self.kind: str = kind
        self.ways, self.shots, self.queries, self.batch = ways, shots, queries, batch
        self.episodes, self.val_episodes = episodes, val_episodes
        self.test_shots = shots if test_shots is None else test_shots
        self.test_queries = queries if test_queries is None else test_queries
        self.test_ways, self.eval_batch = test_ways, eval_batch
        self.train_classes, self.val_classes, self.test_classes = train_classes, val_classes, test_classes
        self.train_count = train_count
        self.symmetries, self.symmetries_eval = symmetries, symmetries_eval
        self.one_group_eval, self.one_drawer_eval = one_group_eval, one_drawer_eval
        self.dilation, self.binarize, self.augment = dilation, binarize, augment
        self.eval_seed = eval_seed

    def streams(self, bank: Bank, test_bank: Bank | None, split: Split, seed: int) -> Streams:
        """Return the streams of this task; ``test_bank`` is None where the test data are ``bank``'s.

        With another test bank, ``test_classes`` names its classes, by default all of them.

        Raises:
            MetagenError: the split does not fit the banks, or an episode is impossible.
        """
        foreign = test_bank is not None and test_bank.sha256 != bank.sha256
        split = split.override(
            bank.names, self.train_classes, self.val_classes, None if foreign else self.test_classes
        )
        split.check(bank.names, bank.name)
        split = self._counted(split, seed)
        judged, tests = bank, split.test
        if test_bank is not None and foreign:
            judged, tests = test_bank, self._foreign(split.train, bank, test_bank)
        train = EpisodeSampler(
            bank, split.train, self.ways, self.shots, self.queries, seed, "train",
            self.symmetries, self.dilation, "published_train", self.binarize, self.augment,
        )  # fmt: skip
        val: Stream | None = None
        if self.val_episodes:
            val = EpisodeStream(self._val(bank, split), self.eval_batch, self.val_episodes)
        ways = self.test_ways or self._at_most(tests)
        test = self._judge(judged, tests, "test", ways, self.test_shots, self.test_queries)
        sides = {"train": split.train, "val": split.val, "test": tests}
        return Streams(
            EpisodeStream(train, self.batch), val, EpisodeStream(test, self.eval_batch, self.episodes), sides
        )

    def _counted(self, split: Split, seed: int) -> Split:
        """Return ``split`` with ``train_count`` of its training classes, in a random order."""
        if self.train_count is None:
            return split
        if self.train_count > len(split.train):
            raise MetagenError(
                f"task.train_count={self.train_count} but the split has {len(split.train)} training classes: "
                f"lower it, or name more in task.train_classes"
            )
        order = rng.subset(rng.key(seed, _COUNTED), len(split.train), self.train_count)
        return replace(split, train=tuple(split.train[i] for i in order.tolist()))

    def _foreign(self, trained: Sequence[str], bank: Bank, test_bank: Bank) -> tuple[str, ...]:
        shapes = [tuple(b.images.shape[1:]) for b in (bank, test_bank)]
        if shapes[0] != shapes[1]:
            raise MetagenError(
                f"{bank.name} and {test_bank.name} have images of {shapes[0]} and {shapes[1]} (channels, "
                f"height, width): set data.size and data.channels of both alike"
            )
        tests = test_bank.names
        if self.test_classes is not None:
            tests = class_names(self.test_classes, "task.test_classes")
        check_known(tests, test_bank.names, test_bank.name, "task.test_classes")
        if both := len(set(tests) & set(trained)):
            _LOG.warning(
                "%d test classes of %s have the name of a training class of %s: they are unseen only if the "
                "names mean different things there", both, test_bank.name, bank.name,
            )  # fmt: skip
        return tests

    def _val(self, bank: Bank, split: Split) -> EpisodeSampler:
        if split.val:
            return self._judge(bank, split.val, "val", self._at_most(split.val), self.shots, self.queries)
        if not bank.held.any():
            raise MetagenError(
                f"the split has no validation classes and {bank.name} no held-out images to validate on: "
                f"set task.val_classes=[...], another data.split, or task.val_episodes=0"
            )
        return EpisodeSampler(
            bank, split.train, self.ways, self.shots, self.queries, self.eval_seed, "val",
            images="held", binarize=self.binarize,
            one_group=self.one_group_eval, one_drawer=self.one_drawer_eval,
        )  # fmt: skip

    def _at_most(self, classes: Sequence[str]) -> int:
        """Return how many classes of ``classes`` an episode has: a generator takes any number."""
        return min(self.ways, len(classes)) if self.kind == "generate" else self.ways

    def _judge(
        self, bank: Bank, classes: Sequence[str], stage: str, ways: int, shots: int, queries: int
    ) -> EpisodeSampler:
        images: Images = "held" if bank.held.any() else "all"
        return EpisodeSampler(
            bank, classes, ways, shots, queries, self.eval_seed, stage,
            self.symmetries_eval, 0.0, images, self.binarize,
            one_group=self.one_group_eval, one_drawer=self.one_drawer_eval,
        )  # fmt: skip


class Supervised:
    """Plain classification: every training image once an epoch, every held image once in the test.

    Args:
        ways: number of classes, those of ``classes``.
        batch: images of a training step.
        test_batch: images evaluated at a time.
        classes: names of the classes, by default all; label y is the position in this list.
        val_images: how many training images are kept for validation instead (the same in every run).

    Raises:
        MetagenError: an argument is of the wrong type or out of range.
    """

    few_shot = False
    kind: str = "classify"
    images_of_a_class = 1

    @checked
    def __init__(
        self,
        ways: Annotated[int, Ge(2), Le(MANY)],
        batch: PositiveInt = 64,
        test_batch: PositiveInt = 100,
        classes: Classes | None = None,
        val_images: NonNegativeInt = 0,
    ) -> None:
        self.ways, self.batch, self.test_batch = ways, batch, test_batch
        self.classes, self.val_images = classes, val_images

    def streams(self, bank: Bank, test_bank: Bank | None, split: Split, seed: int) -> Streams:
        """Return the streams of this task; the class split plays no role.

        Raises:
            MetagenError: the classes do not fit, or there are no held images to test on.
        """
        names = bank.names if self.classes is None else class_names(self.classes, "task.classes")
        judged = test_bank or bank
        for each in (bank, judged):
            check_known(names, each.names, each.name, "task.classes")
        if len(set(names)) != self.ways:
            raise MetagenError(
                f"task.ways={self.ways} but {len(set(names))} classes: set task.ways={len(set(names))}"
            )
        if not judged.held.any():
            raise MetagenError(
                f"{judged.name} has no published test part to test on: use data=digits or data=mnist"
            )
        rows = [self._rows(b, names, h) for b, h in ((bank, ~bank.held), (judged, judged.held))]
        fixed = _shuffle(len(rows[0]))
        if self.val_images >= len(rows[0]):
            raise MetagenError(
                f"task.val_images={self.val_images} leaves none of {len(rows[0])} images: lower it"
            )
        kept, rest = rows[0][fixed[: self.val_images]], rows[0][fixed[self.val_images :].sort().values]
        return Streams(
            ImageStream(bank, names, rest, self.batch, seed, "train"),
            ImageStream(bank, names, kept, self.test_batch, None, "val") if self.val_images else None,
            ImageStream(judged, names, rows[1][_shuffle(len(rows[1]))], self.test_batch, None, "test"),
            {"train": names, "val": names, "test": names},
        )

    @staticmethod
    def _rows(bank: Bank, names: Sequence[str], part: Tensor) -> Tensor:
        wanted = torch.tensor([name in set(names) for name in bank.names])
        return (wanted[bank.labels] & part).nonzero()[:, 0]


def _shuffle(n: int) -> Tensor:
    """Return the numbers below ``n`` in an order that is random and always the same."""
    return rng.subset(rng.key(0, n), n, n)
