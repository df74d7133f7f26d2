"""The set-up of an experiment: all its objects, and what a job takes from them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metagen.core.metric import Metric
from metagen.data.datamodule import EpisodeData
from metagen.data.untested_classes import untested_classes
from metagen.evaluation.evaluation import Curves, Evaluation
from metagen.evaluation.generative_classifier import IMPORTANCE_SAMPLES
from metagen.evaluation.likelihood import Likelihood
from metagen.training.checkpoints import Keeper
from metagen.training.divergence import Divergence
from metagen.training.module import Experiment
from metagen.training.sample_images import SampleImages
from metagen.training.skip_bad_steps import SkipBadSteps
from metagen.training.trainers import Trainers

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


@dataclass
class Setup:
    """The objects that a configuration describes; behind them nobody reads a configuration.

    data:       its banks are loaded, its streams ready.
    experiment: model and learner, initialised.
    metrics:    by name.
    likelihood: what is measured over the number of context images, or None.
    judge:      a classifier of real data, not yet trained; None where no metric asks for one.
    samples:    generated images a class at test.
    curves:     which metrics are measured after fewer test steps, too: all, those that are cheap, or
                (``last``) none.
    importance_samples: of the images that a generator classifies, where its likelihood is a bound.
    trainers:   makes Lightning's trainers.
    start:      the checkpoint file that a training starts from, or None.
    every:      seconds between two checkpoints at most.
    patience:   bad steps in a row that may be skipped.
    advice:     what is likely to help against NaN.
    """

    data: EpisodeData
    experiment: Experiment
    metrics: dict[str, Metric]
    likelihood: Likelihood | None
    judge: Any
    samples: int
    trainers: Trainers
    start: str | None = None
    every: float = 60.0
    patience: int = 10
    advice: str = ""
    curves: Curves = "cheap"
    importance_samples: int = IMPORTANCE_SAMPLES

    def samples_shown(self) -> list[SampleImages]:
        """Return the callback that shows samples beside the curves, of a generator with a validation."""
        generates = self.experiment.model.kind == "generate"
        few_shot = self.experiment.learner.few_shot
        val = self.data.streams.val
        return [SampleImages(val.batch(0))] if generates and few_shot and val is not None else []

    def evaluation(self, echo: Callable[[str], Any] = log.info, device: torch.device = CPU) -> Evaluation:
        """Return the evaluation on the test stream; a judge is trained for it where a metric needs one.

        Args:
            echo: takes what the judge says.
            device: where the judge is trained.
        """
        if self.judge is not None:
            self.judge.device = device
            self.judge.say = echo
            self.judge.fit(self.data.test_bank, self._tested())
        steps, labels = self.experiment.learner.test_steps, self.data.streams.test.class_ids
        return Evaluation(
            self.metrics,
            labels,
            self.judge,
            self.samples,
            steps,
            self.likelihood,
            self._others(),
            self.curves,
            self.importance_samples,
        )

    def check(self) -> None:
        """Refuse before the training what would fail behind it: the judge, or a metric.

        Raises:
            MetagenError: the test cannot be evaluated like this.
        """
        self._others()
        if self.judge is not None:
            self.judge.check(self.data.test_bank, self._tested())

    def _tested(self) -> set[str]:
        """Return the names of the classes of the test."""
        return {self.data.test_bank.names[int(label)] for label in self.data.streams.test.class_ids}

    def _others(self) -> Any:
        """Return images of the classes that are not tested, where a metric asks for them."""
        asked = any(one.needs_others for one in self.metrics.values())
        return untested_classes(self.data.test_bank, self._tested()) if asked else None

    def keeper(self, folder: Path) -> Keeper:
        """Return the callback that writes checkpoints into ``folder``."""
        return Keeper(folder, self.every)

    @property
    def planned_steps(self) -> int:
        """Return the steps of a whole training; 0 where nothing is trained."""
        if not self.experiment.learner.meta_trained:
            return 0
        return self.trainers.planned_steps(self.data.streams.train.batches)

    def divergence(self) -> Divergence:
        """Return the callback that says that a training has diverged."""
        surrogate = self.experiment.learner.surrogate or self.experiment.model.surrogate
        return Divergence(self.advice, self.data.streams.val is not None, told=not surrogate)

    def skips(self, learner: str) -> SkipBadSteps:
        """Return the callback that skips bad steps; ``learner`` is the name that its error tells."""
        return SkipBadSteps(self.patience, learner, self.advice)
