"""A trained run, loaded: it adapts to new classes, draws them, classifies and scores images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metagen.config.compose import resolved
from metagen.config.overrides import texts
from metagen.config.schema import check
from metagen.core.episode import Params, Shots
from metagen.data.form import Form
from metagen.data.given_images import Images, as_images
from metagen.errors import MetagenError
from metagen.evaluation.generative_classifier import IMPORTANCE_SAMPLES, class_logits
from metagen.functional import rng
from metagen.functional.device import device_of
from metagen.jobs.build import build_experiment, load_checkpoint
from metagen.learners.rule_optimizer import RuleOptimizer
from metagen.learners.rules import Rule
from metagen.ranges import AdaptationSteps, PositiveInt, Seed, fits, refusal
from metagen.report.pictures import to_uint8
from metagen.runs.places import located
from metagen.runs.reopen import best_checkpoint, reopen
from metagen.training.checkpoints import read_checkpoint

NUMBERS = {
    "ways": PositiveInt, "n": PositiveInt, "seed": Seed, "steps": AdaptationSteps | None,
    "importance_samples": PositiveInt,
}  # fmt: skip
"""What the numbers may be that the methods take."""
MOST_CLASSES = 1_000_000
"""Of the training: a file may claim any number, and tables of that size would be made."""


class Trained:
    """A model with its learner, in the state of a run's best checkpoint.

    Args:
        run: its folder.
        overrides: on top of the run's own, such as ``learner.test_steps=20``.
        device: where it computes, and where the tensors that it returns are.

    Attributes:
        folder: of the run.
        config: what it was made with, plain values.
        kind: ``"generate"`` or ``"classify"``.
        form: of its images: side, channels, whether they are drawings.
        learner, objective: with the parameters of the checkpoint.

    Raises:
        MetagenError: no run, or no checkpoint that fits.

    >>> import metagen
    >>> trained = metagen.load("outputs/quickstart")            # doctest: +SKIP
    >>> adapted = trained.adapt(images)                         # doctest: +SKIP
    >>> drawn = trained.generate(images, n=16)                  # doctest: +SKIP
    """

    def __init__(
        self, run: str | Path, overrides: Sequence[str] = (), device: str | torch.device = "cpu"
    ) -> None:
        self.device = device if isinstance(device, torch.device) else device_of(device)
        overrides = texts("overrides", overrides)
        self.folder = located(run)
        checkpoint = best_checkpoint(self.folder)
        self.config = resolved(reopen(self.folder, overrides, start=False).config)
        check(self.config)
        self.kind = str(self.config["task"].get("kind", "classify"))
        try:
            self.form = Form.of(self.config["data"])
        except MetagenError as error:
            raise MetagenError(f"{run}: {error}") from error
        experiment = build_experiment(self.config, _classes(checkpoint)).eval()
        load_checkpoint(experiment, checkpoint)
        experiment.to(self.device)
        self.learner, self.objective = experiment.learner, experiment.objective

    def shots(self, images: Images, seed: int = 0) -> Shots:
        """Return images as the support set of N classes.

        Args:
            images: (N, K, C, H, W), or arrays (N, K, H, W) and (N, K, H, W, 3), floats in [0, 1] or uint8, as
                the data are, drawings light on dark; or for each class a list of PIL images or paths, of any
                size, drawings dark on light, which are read as ``metagen generate`` does.
            seed: of the noise that the model draws while it adapts.

        Raises:
            MetagenError: images of another shape or size, or classes of unequal numbers of images.
        """
        _check(seed=seed)
        return self._shots(images, seed)

    def _shots(self, images: Images, seed: int, name: str = "images") -> Shots:
        x = as_images(images, self.form, name)
        ways, shots = x.shape[:2]
        y = torch.arange(ways, device=self.device)[:, None].expand(ways, shots)
        return Shots(x.to(self.device), y, rng.key(seed, 1).to(self.device))

    @torch.no_grad()
    def path(self, support: Shots, steps: int) -> Iterator[Params]:
        """Yield what adaptation makes of the parameters: phi_0, phi_1, ..., phi_steps, all of each."""
        params = self.objective.params()
        for state in self.learner.path(self.objective, params, support, range(steps + 1)):
            yield {**params, **state.params}

    @torch.no_grad()
    def adapt(self, images: Images | Shots, steps: int | None = None, seed: int = 0) -> Params:
        """Return phi = U(theta; images), all parameters of the model after adaptation.

        Args:
            images: the support, see :meth:`shots`.
            steps: of adaptation; None takes as many as the run's test.
            seed: of the noise that the model draws while it adapts.
        """
        _check(steps=steps)
        support = images if isinstance(images, Shots) else self.shots(images, seed)
        return self.learner.adapt(self.objective, self.objective.params(), support, steps)

    @torch.no_grad()
    def loss(self, phi: Params, shots: Shots) -> float:
        """Return L(phi; shots), by which gradient learners adapt (nats for a likelihood)."""
        return float(self.objective.loss(phi, shots))

    @torch.no_grad()
    def sample(self, phi: Params, ways: int, n: int, seed: int = 0) -> Tensor:
        """Return n new images of each of N classes from adapted parameters, (N, n, C, H, W) in [0, 1].

        Args:
            phi: what :meth:`adapt` returned.
            ways: the number N of classes, at most as many as it was adapted to.
            n: images of each.
            seed: of the noise.

        Raises:
            MetagenError: the run of a classifier, or more classes than there are.
        """
        _check(ways=ways, n=n, seed=seed)
        self.check_generates()
        self._check_phi(phi, ways)
        labels = torch.arange(ways, device=self.device).repeat_interleave(n)
        drawn = self.objective.call("sample", phi, labels, rng.key(seed, 2).to(self.device))
        return drawn.unflatten(0, (ways, n)).clamp(0, 1)

    def generate(
        self, images: Images | Shots, n: int = 16, seed: int = 0, steps: int | None = None
    ) -> Tensor:
        """Adapt to images of N classes and return n new ones of each, (N, n, C, H, W) in [0, 1]."""
        _check(n=n, seed=seed, steps=steps)
        self.check_generates()
        support = images if isinstance(images, Shots) else self.shots(images, seed)
        return self.sample(self.adapt(support, steps), len(support.y), n, seed)

    @torch.no_grad()
    def log_likelihood(
        self, images: Images | Shots, queries: Images, importance_samples: int = 1000, seed: int = 0
    ) -> Tensor:
        """Return log p(query | images of its class), in nats, for each query image, (N, Q).

        Args:
            images: the support of N classes.
            queries: Q other images of the same classes.
            importance_samples: of a bound (:class:`metagen.evaluation.likelihood.Likelihood`).
            seed: of the noise.

        Raises:
            MetagenError: the model has no likelihood.
        """
        if getattr(self.objective.model, "likelihood", None) is None:
            name = type(self.objective.model).__name__
            raise MetagenError(
                f"{name} has no likelihood of pixels in nats; use a run of a model that has one"
            )
        _check(importance_samples=importance_samples, seed=seed)
        support = images if isinstance(images, Shots) else self.shots(images, seed)
        target = self._shots(queries, seed + 1, "queries")
        _check_classes(support, target)
        return self.objective.call("log_likelihood", self.adapt(support), target, importance_samples)

    @torch.no_grad()
    def classify(self, images: Images | Shots, queries: Images, seed: int = 0) -> Tensor:
        """Return p(class | query) for each query image, (N, Q, N), after adapting to the support ``images``.

        A generator whose likelihood is known classifies by Bayes' rule
        (:func:`metagen.evaluation.generative_classifier.class_logits`).

        Raises:
            MetagenError: the run of a generator that has no likelihood.
        """
        support = images if isinstance(images, Shots) else self.shots(images, seed)
        target = self._shots(queries, seed + 1, "queries")
        if self.kind == "generate":
            _check_classes(support, target)
        phi = self.adapt(support)
        if self.kind == "generate":
            samples = self.config.get("importance_samples", IMPORTANCE_SAMPLES)
            logits = class_logits(self.objective, phi, target, samples)
        else:
            given = support.x.flatten(0, 1)
            logits = self.objective.call("logits", phi, target.x.flatten(0, 1), given)
        return logits.softmax(-1).unflatten(0, target.x.shape[:2])

    def optimizer(self, params: Any, lr: float = 1.0) -> torch.optim.Optimizer:
        """Return the learner's update rule as an optimizer of torch, for any network.

        Args:
            params: tensors or groups of them, as for any optimizer of torch.
            lr: a factor of every step; 1 is the rule as it was learned.

        Raises:
            MetagenError: the learner has no rule, or one that learned numbers for the layers of one model.
        """
        rule = getattr(self.learner, "rule", None)
        if not isinstance(rule, Rule):
            raise MetagenError(
                f"{self.folder}: its learner has no update rule; use a run of learner=learned_optimizer_mlp"
            )
        return RuleOptimizer(params, rule, lr)

    def check_generates(self) -> None:
        """Refuse the run of a classifier.

        Raises:
            MetagenError: it is one.
        """
        if self.kind != "generate":
            raise MetagenError(
                f"{self.folder} is no generator's run (its task is {self.kind}): name one that generates"
            )

    def _check_phi(self, phi: Params, ways: int) -> None:
        """Refuse what is no parameters, and more classes than these have."""
        if not isinstance(phi, Mapping):
            raise MetagenError(f"phi: expected what adapt(images) returns, not {type(phi).__name__}")
        tables = (*self.objective.model.per_class, "memory")
        every = {**self.objective.params(), **phi}
        rows = max((len(every[name]) for name in tables if name in every), default=ways)
        if ways > rows:
            raise MetagenError(f"ways={ways}: phi was adapted to {rows} classes, so give ways={rows} or less")

    def draw(self, phi: Params, ways: int, n: int, seed: int) -> np.ndarray:
        """Return n images of each of N classes, uint8 (N, n, H, W), or (N, n, H, W, 3)."""
        return to_uint8(self.sample(phi, ways, n, seed))


def load(run: str | Path, overrides: Sequence[str] = (), device: str | torch.device = "cpu") -> Trained:
    """Return the model and the learner of a run, in the state of its best checkpoint.

    Args:
        run: its folder.
        overrides: on top of the run's own, such as ``learner.test_steps=20``.
        device: where it computes: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there is one.

    Raises:
        MetagenError: no run, no checkpoint that fits, or no such device.
    """
    return Trained(run, overrides, device)


def _check(**given: Any) -> None:
    """Refuse numbers that are none, or out of their range.

    Raises:
        UsageError: there is one.
    """
    for name, value in given.items():
        if not fits(value, NUMBERS[name]):
            raise refusal(name, value, NUMBERS[name])


def _check_classes(support: Shots, target: Shots) -> None:
    """Refuse queries of more or fewer classes than the support has."""
    if len(target.y) != len(support.y):
        given, of = len(target.y), len(support.y)
        raise MetagenError(f"queries of {given} classes, images of {of}: give queries of the same classes")


def _classes(checkpoint: Path) -> int:
    """Return the number of training classes, which tells the sizes of a learner's tables."""
    saved = read_checkpoint(checkpoint)
    try:
        classes = int(saved["hyper_parameters"]["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise MetagenError(
            f"{checkpoint} does not say of how many classes it is: name a checkpoint of metagen"
        ) from error
    if not 1 <= classes <= MOST_CLASSES:
        raise MetagenError(
            f"{checkpoint} is of {classes} classes: expected 1 to {MOST_CLASSES:,}; train again"
        )
    return classes
