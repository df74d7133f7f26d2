"""Episodes as a pure function of (seed, stage, index), drawn for a whole batch of tasks at once."""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from metagen.core.episode import Episode, Shots
from metagen.data import pixels
from metagen.data.augment import Augmentation
from metagen.data.bank import Bank
from metagen.data.draw import distinct
from metagen.data.on_device import moved
from metagen.data.split import check_known
from metagen.data.turned_images import TurnedImages, turned_images
from metagen.errors import MetagenError, nearest
from metagen.functional import rng

STAGES = {"train": 0, "val": 1, "test": 2}
Images = Literal["all", "published_train", "held"]

_CLASSES, _IMAGES, _SUPPORT, _QUERY, _DILATE, _BINARIZE, _AUGMENT = range(7)
_TURNS = [f"{flip}{turn}" for flip in ("", " mirrored") for turn in ("", " rot90", " rot180", " rot270")]


class EpisodeIndices(NamedTuple):
    """The classes and images of T episodes, as indices, and their random keys.

    classes: (T, N) index into the sampler's list of pseudo-classes.
    support: (T, N, K) index into the bank's images.
    query:   (T, N, Q) likewise, disjoint from ``support``.
    key:     (T,) the episodes' random keys.
    noise:   (T, 2) the keys of their support and query images.
    """

    classes: Tensor
    support: Tensor
    query: Tensor
    key: Tensor
    noise: Tensor


class _Groups:
    """The groups of classes that an episode may be of; without ``several`` all classes are one group.

    Args:
        names: of the pseudo-classes; a group is what is before the last ``/``.
        ways: N; smaller groups are left out.
        several: whether the groups are kept apart.
    """

    def __init__(self, names: Sequence[str], ways: int, several: bool) -> None:
        members: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            members.setdefault(name.rpartition("/")[0] if several else "", []).append(index)
        large = [group for group in members.values() if len(group) >= ways]
        self._counts = torch.tensor([len(group) for group in large], dtype=torch.int64)
        self._starts = self._counts.cumsum(0) - self._counts
        self._order = torch.tensor([index for group in large for index in group], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._counts)

    def draw(self, key: Tensor, indices: Tensor, ways: int) -> Tensor:
        """Draw N distinct classes for each of the episodes numbered ``indices`` (T,): (T, N)."""
        group = indices % len(self)
        picks = distinct(key, self._counts[group], ways)
        return self._order[self._starts[group].unsqueeze(-1) + picks]


class EpisodeSampler:
    """Draws N-way episodes with K support and Q query images of each class.

    N of the P pseudo-classes without replacement, in random order, so that labels are shuffled;
    K + Q distinct images of each. With ``symmetries`` the eight rotations and reflections of a class
    are classes of their own: pseudo-class 8 c + s is class c under symmetry s
    (:func:`metagen.data.pixels.symmetries`), shared by its support and query images.

    Args:
        bank: the images.
        classes: names of the classes to draw from, a subset of the bank's.
        ways, shots, queries: N, K, Q.
        seed, stage: with the episode's index all that an episode depends on.
        symmetries: whether rotations and reflections are classes of their own.
        dilation: probability that an episode's strokes are thickened, all by one random amount.
        images: which images: all, the bank's held ones, or the others (``published_train``).
        binarize: ``"threshold"``, ``"bernoulli"`` or None.
        augment: random changes of the images, in this order, before they are binarized.
        one_group: whether the classes of an episode are of one group, such as an alphabet: the part of a name
            before its last ``/``. Episode i takes the (i mod G)-th of the G groups with N classes or more.
        one_drawer: whether the classes of an episode share the places of their images in the bank, which
            in Omniglot are the people who drew them: each support image is by one drawer for all classes,
            each query image by another.

    Attributes:
        class_ids: (P,) bank label of each pseudo-class.
        symmetry: (P,) its symmetry, 0 to 7.
        names: its P names.

    Raises:
        MetagenError: the data cannot give such an episode, or an argument is out of range.
    """

    def __init__(
        self,
        bank: Bank,
        classes: Sequence[str],
        ways: int,
        shots: int,
        queries: int,
        seed: int,
        stage: str,
        symmetries: bool = False,
        dilation: float = 0.0,
        images: Images = "all",
        binarize: str | None = None,
        augment: Sequence[Augmentation] = (),
        one_group: bool = False,
        one_drawer: bool = False,
    ) -> None:
        if stage not in STAGES:
            raise MetagenError(f"stage is '{stage}': expected {', '.join(STAGES)}{nearest(stage, STAGES)}")
        if not 0 <= dilation <= 1:
            raise MetagenError(f"task.dilation is {dilation}: expected a probability; set it between 0 and 1")
        if binarize not in (None, "threshold", "bernoulli"):
            raise MetagenError(f"task.binarize is {binarize!r}: expected null, threshold or bernoulli")
        check_known(classes, bank.names, bank.name, f"the {stage} stage")
        self.bank, self.seed, self.stage = bank, seed, stage
        self.ways, self.shots, self.queries = ways, shots, queries
        self.dilation, self.binarize, self.augment = dilation, binarize, tuple(augment)
        self.one_drawer = one_drawer
        self.key = rng.key(seed, STAGES[stage])

        label_of = {name: label for label, name in enumerate(bank.names)}
        copies = 8 if symmetries else 1
        labels = torch.tensor([label_of[name] for name in classes], dtype=torch.int64)
        self.class_ids = labels.repeat_interleave(copies)
        self.symmetry = torch.arange(copies).repeat(len(labels))
        self.names = tuple(name + turn for name in classes for turn in _TURNS[:copies])

        usable = {"all": torch.ones_like(bank.held), "held": bank.held, "published_train": ~bank.held}[images]
        self._rows = usable.nonzero()[:, 0]
        counts = torch.bincount(bank.labels[self._rows], minlength=len(bank.names))
        self._starts = (counts.cumsum(0) - counts)[self.class_ids]
        self._counts = counts[self.class_ids]
        self._check(images)
        self._groups = _Groups(self.names, ways, one_group)
        if not len(self._groups):
            raise MetagenError(
                f"the {stage} stage on {bank.name} needs {self._keys('ways')}={ways} classes of one group, "
                f"such as an alphabet, but no group has as many: lower {self._keys('ways')}, or set "
                f"task.one_group_eval=false"
            )
        self._turned: TurnedImages = turned_images(bank.images, symmetries)
        self._there: dict[torch.device, EpisodeSampler] = {}

    def _check(self, images: str) -> None:
        where = f"the {self.stage} stage on {self.bank.name}"
        if self.ways < 1 or self.shots < 0 or self.queries < 0:
            sizes = f"{self.ways} ways, {self.shots} shots, {self.queries} queries"
            raise MetagenError(f"{where} was asked for {sizes}: expected positive numbers")
        if self.ways > len(self):
            without = ", or set task.val_episodes=0" if self.stage == "val" else ""
            raise MetagenError(
                f"{where} needs {self._keys('ways')}={self.ways} classes but has {len(self)}: "
                f"lower {self._keys('ways')} or name more classes in task.{self.stage}_classes "
                f"or by another data.split{without}"
            )
        scarce, needed = int(self._counts.argmin()), self.shots + self.queries
        if needed > int(self._counts[scarce]):
            kind = {"all": "", "held": "held-out ", "published_train": "training "}[images]
            raise MetagenError(
                f"{where} needs {self.shots} shots + {self.queries} queries = {needed} images of "
                f"each class, but class '{self.names[scarce]}' has {int(self._counts[scarce])} {kind}images: "
                f"lower {self._keys('shots')} or {self._keys('queries')}"
            )

    def _keys(self, name: str) -> str:
        """Return the key of a number of this stage."""
        return f"task.test_{name}" if self.stage == "test" else f"task.{name}"

    def __len__(self) -> int:
        """The number of pseudo-classes P."""
        return len(self.class_ids)

    def draw(self, indices: Tensor) -> EpisodeIndices:
        """Draw the episodes numbered ``indices`` (T,)."""
        key = rng.fold_in(self.key, indices)
        # One call for many keys: a batch of draws costs its number of operations, not their size.
        words = torch.tensor([_CLASSES, _IMAGES, _SUPPORT, _QUERY])
        of_classes, of_images, *noise = rng.fold_in(key.unsqueeze(-1), words).unbind(-1)
        classes = self._groups.draw(of_classes, indices, self.ways)
        picks = self._places(of_images, self._counts[classes])
        rows = self._rows[self._starts[classes].unsqueeze(-1) + picks]
        return EpisodeIndices(
            classes, rows[..., : self.shots], rows[..., self.shots :], key, torch.stack(noise, -1)
        )

    def _places(self, key: Tensor, counts: Tensor) -> Tensor:
        """Draw the places of K + Q images among those of each class: (T, N, K + Q)."""
        together = self.shots + self.queries
        if self.one_drawer:
            shared = distinct(key, counts.amin(-1), together)
            return shared.unsqueeze(1).expand(-1, self.ways, -1)
        return distinct(rng.fold_in(key.unsqueeze(-1), torch.arange(self.ways)), counts, together)

    def on(self, device: torch.device) -> "EpisodeSampler":
        """Return a sampler whose :meth:`gather` works on ``device``, where the bank's images are put once."""
        if device not in self._there:
            self._there[device] = moved(self, self.bank.on(device))
        return self._there[device]

    def gather(self, draw: EpisodeIndices) -> Episode:
        """Return the images of ``draw`` as a batch of T episodes, x float32 (T, N, K, C, H, W)."""
        t, n = draw.classes.shape
        rows = torch.cat([draw.support, draw.query], -1)
        k = rows.shape[-1]
        x = self._turned.take(rows.flatten(0, 1), self.symmetry[draw.classes.flatten()])
        x = x.reshape(t, n, k, *self.bank.images.shape[1:])
        if self.dilation:
            coin, amount = rng.uniform(rng.fold_in(draw.key, _DILATE), (2,)).unbind(-1)
            x = pixels.dilate(x, amount * (coin < self.dilation))
        for number, change in enumerate(self.augment):
            x = change(x, rng.fold_in(draw.key, _AUGMENT + number))
        if self.binarize:
            x = pixels.binarize(x, self.binarize, rng.fold_in(draw.key, _BINARIZE))
        y = torch.arange(n, device=x.device).reshape(1, n, 1).expand(t, n, k)
        cut, (of_support, of_query) = self.shots, draw.noise.unbind(-1)
        support = Shots(x[:, :, :cut], y[:, :, :cut], of_support)
        query = Shots(x[:, :, cut:], y[:, :, cut:], of_query)
        return Episode(support, query, draw.classes)

    def episodes(self, indices: Tensor) -> Episode:
        """Return the episodes numbered ``indices`` (T,)."""
        return self.gather(self.draw(indices))

    def fingerprint(self, indices: Tensor) -> str:
        """Return the sha256 of the classes and image indices of the episodes ``indices``."""
        digest = hashlib.sha256()
        for part in indices.split(1000):
            for values in self.draw(part)[:3]:
                digest.update(values.contiguous().numpy().data)
        return digest.hexdigest()
