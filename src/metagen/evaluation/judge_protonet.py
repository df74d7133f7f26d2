"""A judge of classes that nobody has seen: features in which one image of a class is enough to know it."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metagen.core.episode import Shots
from metagen.core.objective import Objective
from metagen.data.augment import Padding, RandomAffine
from metagen.data.bank import Bank
from metagen.data.sampler import EpisodeSampler
from metagen.errors import MetagenError
from metagen.evaluation.judge import Judge, check_network
from metagen.functional import rng
from metagen.functional.vectorize import tree_map
from metagen.learners.meta_learner import MetaLearner
from metagen.learners.readers import Prototypes
from metagen.ranges import PositiveFloat, PositiveInt, Seed, checked

log = logging.getLogger(__name__)
_TEST_WAYS, _TEST_EPISODES, _REFERENCES, _AGAIN = 20, 100, 64, 5


class ProtoNetJudge(Judge):
    """Features of a prototypical network (Snell et al., NeurIPS 2017), trained on the classes not tested.

    It has no classes of its own: metrics compare features with those of real images of the tested classes
    (``metric=recognizability``). Where the network normalises by the statistics of a batch, that batch is
    a fixed set of training images, so that what it says of an image depends on that image alone.

    Args:
        model: ``model(ways=C)`` makes a classifier with ``features(x, support)``.
        steps: of training, each an episode of ``ways`` classes with one support image each.
        ways, queries: classes of a training episode, and query images of each.
        lr: peak of a one-cycle schedule of Adam.
        seed: of the initialisation and the episodes.
        cache: folder of the weights, see :class:`~metagen.evaluation.judge.Judge`.

    Attributes:
        accuracy: of 20-way 1-shot classification of the tested classes (as many as there are), in %.
    """

    has_classes = False

    @checked
    def __init__(
        self,
        model: Callable[..., nn.Module],
        steps: PositiveInt = 1500,
        ways: PositiveInt = 60,
        queries: PositiveInt = 5,
        lr: PositiveFloat = 2e-3,
        seed: Seed = 0,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(model, lr=lr, seed=seed, cache=cache)
        self.steps, self.ways, self.queries = steps, ways, queries

    def check(self, bank: Any, tested: Collection[str] = ()) -> None:
        """Refuse data from which :meth:`fit` could not learn.

        Raises:
            MetagenError: too few classes or images are left to train on, or the network takes others.
        """
        self._sampler(bank, self._untested(bank, tested))
        with torch.random.fork_rng(devices=[]):
            check_network(self._make, self.ways, torch.as_tensor(bank.images[:2]).float() / 255)

    def _untested(self, bank: Any, tested: Collection[str]) -> list[str]:
        train = [name for name in bank.names if name not in tested]
        if len(train) < self.ways:
            raise MetagenError(
                f"judge=protonet learns from {self.ways} untested classes at a time, but {bank.name} "
                f"has {len(train)}: lower judge.ways, or use judge=basenet"
            )
        return train

    def _sampler(self, bank: Any, train: list[str]) -> EpisodeSampler:
        outside: Padding = "zeros" if bank.channels == 1 else "border"
        return EpisodeSampler(
            bank, train, self.ways, 1, self.queries, self.seed, "train", symmetries=True,
            augment=[RandomAffine(0.1, 0.1, 0.1, 1.0, "image", outside)],
        )  # fmt: skip

    def fit(self, bank: Any, tested: Collection[str] = ()) -> "ProtoNetJudge":
        """Train on the classes of ``bank`` that are not ``tested``, or load what was; return self.

        Raises:
            MetagenError: too few classes are left to train on.
        """
        train = self._untested(bank, tested)
        self.classes = tuple(sorted(tested)) or tuple(train)
        sampler = self._sampler(bank, train)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model = self._make(ways=self.ways).to(self.device)
            self.references = self._reference_images(bank, train)
            file = self._file(self._digest(bank, train))
            with self._alone(file, bank.name):
                if not self._load(file, lambda: self._tested_again(bank)):
                    self._anew(ways=self.ways)
                    self._say_training(bank.name, len(train))
                    self._learn(sampler)
                    self._check_finite(bank.name)
                    self.model.eval()
                    self.accuracy = self._few_shot_accuracy(bank, self.classes, _TEST_EPISODES)
                    self._save(file)
        self.model.eval().requires_grad_(False)
        log.info("prototypical judge of %s: %.2f %% of new classes recognised", bank.name, self.accuracy)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Refuse: there are no classes to give logits of."""
        raise MetagenError(
            "judge=protonet has no classes of its own, which this metric asks for: use the metric "
            "recognizability, or judge=basenet"
        )

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to features (B, F), each by itself."""
        if not self.classes:
            raise MetagenError("the judge was not trained: call fit(bank, tested) first")
        self.model.to(x.device)
        given = self.references.to(x)
        return torch.cat([self.model.features(part.float(), given) for part in x.split(1024)])

    def _learn(self, sampler: EpisodeSampler) -> None:
        learner, objective = MetaLearner(Prototypes()), Objective(self.model)
        learner.bind(objective, len(sampler))
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=self.steps + 1)
        self.model.train()
        for step in tqdm(
            range(self.steps), desc="prototypical judge", unit="step", disable=None, leave=False
        ):
            batch = tree_map(self._there, sampler.episodes(torch.tensor([step])))
            support, query = (Shots(*(leaf[0] for leaf in part)) for part in (batch.support, batch.query))
            optimizer.zero_grad(set_to_none=True)
            objective.loss(learner.adapt(objective, objective.params(), support), query).backward()
            optimizer.step()
            schedule.step()

    def _there(self, x: Tensor) -> Tensor:
        return x.to(self.device)

    def _tested_again(self, bank: Bank) -> tuple[float, int]:
        self.model.eval()
        decisions = _AGAIN * self.queries * min(_TEST_WAYS, len(self.classes))
        # those of one episode fail together: they count as a quarter of as many
        return self._few_shot_accuracy(bank, self.classes, _AGAIN), max(1, decisions // 4)

    def _few_shot_accuracy(self, bank: Bank, names: Collection[str], episodes: int) -> float:
        ways = min(_TEST_WAYS, len(names))
        sampler = EpisodeSampler(bank, list(names), ways, 1, self.queries, self.seed, "test")
        right = []
        for index in torch.arange(episodes).split(1):
            episode = tree_map(self._there, sampler.episodes(index))
            means, query = (self.features(part.x[0].flatten(0, 1)) for part in episode[:2])
            right.append(torch.cdist(query, means).argmin(-1) == episode.query.y[0].flatten())
        return 100 * float(torch.cat(right).double().mean())

    def _reference_images(self, bank: Bank, names: Collection[str]) -> Tensor:
        wanted = torch.tensor([name in set(names) for name in bank.names])
        rows = wanted[bank.labels].nonzero()[:, 0]
        rows = rows[rng.subset(rng.key(self.seed), len(rows), min(_REFERENCES, len(rows)))]
        return bank.images[rows].float() / 255

    def _digest(self, bank: Bank, names: Collection[str]) -> str:
        settings = [self.steps, self.ways, self.queries, self.lr, self.seed]
        text = json.dumps([bank.sha256, sorted(names), settings, repr(self.model)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
