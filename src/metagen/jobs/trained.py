"""A trained run, loaded: it adapts to new classes, draws them, classifies and scores images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metagen.config.compose import resolved
from metagen.config.overrides import texts
from metagen.config.schema import check
from metagen.core.episode import Params, Shots
from metagen.data.form import Form
from metagen.errors import MetagenError
from metagen.evaluation.generative_classifier import IMPORTANCE_SAMPLES, class_logits
from metagen.functional import rng
from metagen.functional.device import device_of
from metagen.jobs.build import build_experiment, load_checkpoint
from metagen.learners.rule_optimizer import RuleOptimizer
from metagen.learners.rules import Rule
from metagen.report.pictures import to_uint8
from metagen.runs.places import located
from metagen.runs.reopen import best_checkpoint, reopen
from metagen.training.checkpoints import read_checkpoint

Images = Tensor | np.ndarray | Sequence[Sequence[Any]]
"""Images of N classes, K of each: (N, K, C, H, W), or a list of lists of PIL images or paths."""
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
        x, form = _tensor(images, self.form), self.form
        if x.dim() == 4:
            x = x.unsqueeze(2)
        elif form.channels > 1 and x.shape[2:] == form.shape:
            x = x.movedim(-1, 2)
        expected = (form.channels, form.size, form.size)
        if x.dim() != 5 or x.shape[2:] != expected:
            sides = ", ".join(map(str, expected))
            raise MetagenError(f"images of shape {tuple(x.shape)}: expected (N, K, {sides})")
        if x.numel() and not (float(x.min()) >= 0 and float(x.max()) <= 1):
            raise MetagenError("images: expected pixels in [0, 1], or uint8")
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
        support = images if isinstance(images, Shots) else self.shots(images, seed)
        return self.learner.adapt(self.objective, self.objective.params(), support, steps)

    @torch.no_grad()
    def loss(self, phi: Params, shots: Shots) -> float:
        """Return L(phi; shots), by which gradient learners adapt (nats for a likelihood)."""
        return float(self.objective.loss(phi, shots))

    @torch.no_grad()
    def sample(self, phi: Params, ways: int, n: int, seed: int = 0) -> Tensor:
        """Return n new images of each of N classes from adapted parameters, (N, n, C, H, W) in [0, 1].

        Raises:
            MetagenError: the run of a classifier.
        """
        self.check_generates()
        labels = torch.arange(ways, device=self.device).repeat_interleave(n)
        drawn = self.objective.call("sample", phi, labels, rng.key(seed, 2).to(self.device))
        return drawn.unflatten(0, (ways, n)).clamp(0, 1)

    def generate(
        self, images: Images | Shots, n: int = 16, seed: int = 0, steps: int | None = None
    ) -> Tensor:
        """Adapt to images of N classes and return n new ones of each, (N, n, C, H, W) in [0, 1]."""
        if n < 1:
            raise MetagenError(f"n={n}: expected at least 1 image a class")
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
        target = self.shots(queries, seed + 1)
        return self.objective.call(
            "log_likelihood", self.adapt(images, seed=seed), target, importance_samples
        )

    @torch.no_grad()
    def classify(self, images: Images | Shots, queries: Images, seed: int = 0) -> Tensor:
        """Return p(class | query) for each query image, (N, Q, N), after adapting to the support ``images``.

        A generator whose likelihood is known classifies by Bayes' rule
        (:func:`metagen.evaluation.generative_classifier.class_logits`).

        Raises:
            MetagenError: the run of a generator that has no likelihood.
        """
        support = images if isinstance(images, Shots) else self.shots(images, seed)
        target = self.shots(queries, seed + 1)
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


def _tensor(images: Images, form: Form) -> Tensor:
    """Return images as floats in [0, 1]."""
    if isinstance(images, Tensor | np.ndarray):
        x = torch.as_tensor(images)
        return x.float() / 255 if x.dtype == torch.uint8 else x.float()
    counts = {len(row) for row in images}
    if len(counts) != 1 or 0 in counts:
        raise MetagenError(
            f"images: expected as many of each class, at least 1, not {[len(row) for row in images]}"
        )
    rows = [[_one(image, form) for image in row] for row in images]
    return torch.stack([torch.stack(row) for row in rows])


def _one(image: Any, form: Form) -> Tensor:
    """Return one image as floats (C, H, W); a picture or a path is read as ``metagen generate`` reads it."""
    if isinstance(image, Tensor | np.ndarray):
        x = torch.as_tensor(image)
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        x = x if x.dim() == 3 else x.unsqueeze(0)
        return x.movedim(-1, 0) if form.channels > 1 and x.shape == form.shape else x
    if isinstance(image, Image.Image | str | Path):
        x = torch.from_numpy(form.read(image)).float() / 255
        return x.unsqueeze(0) if x.dim() == 2 else x.movedim(-1, 0)
    raise MetagenError(f"images: expected tensors, PIL images or paths, not {type(image).__name__}")


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
