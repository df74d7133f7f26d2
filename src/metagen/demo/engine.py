"""The engine of the page: several runs adapt to the same few images, step by step."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from metagen.config.saved import saved_choices
from metagen.data.form import Form
from metagen.demo.adapted import AdaptationPoint, Adapted, Support, distances
from metagen.errors import MetagenError
from metagen.evaluation.evaluation import budgets
from metagen.jobs.trained import Trained

MAX_SHOTS = 5
MAX_STEPS = 100
MAX_SAMPLES = 32
STRIP = 6
"""Samples that are drawn at each of the shown steps."""
SEED = 0
"""The same noise at every step, for every run and visitor: differences are the learners'."""


class SupersededError(Exception):
    """Nobody waits for the answer any more."""


def _never() -> bool:
    return False


@dataclass
class Runner:
    """A loaded run with its name on the page; ``seconds`` is what its first result takes."""

    folder: Path
    trained: Trained = field(repr=False)
    label: str
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def steps(self) -> int:
        """Adaptation steps in the run's test."""
        return self.trained.learner.test_steps if self.takes_steps else 0

    @property
    def takes_steps(self) -> bool:
        """Whether the learner does anything after it has read the images."""
        return self.trained.learner.takes_steps

    def adapt(self, support: Support, steps: int, n: int, stop: Callable[[], bool] = _never) -> Adapted:
        """Adapt for ``steps`` steps (none, if the learner takes none) and draw ``n`` images.

        Raises:
            MetagenError: a number is out of range, or there is no support image of the run's form.
            SupersededError: ``stop``, which is asked before every step, said so.
        """
        pictures = support.get(self.trained.form, np.zeros((0, 1, 1), np.uint8))
        for name, value, least, most in (
            ("images", len(pictures), 1, MAX_SHOTS),
            ("steps", steps, 0, MAX_STEPS),
            ("samples", n, 1, MAX_SAMPLES),
        ):
            if not least <= value <= most:
                raise MetagenError(f"{value} {name}: expected {least} to {most}")
        # functional_call puts parameters into a shared module and out again: one visitor at a time
        with self.lock:
            return self._adapt(pictures, steps if self.takes_steps else 0, n, stop)

    def _adapt(self, pictures: np.ndarray, steps: int, n: int, stop: Callable[[], bool]) -> Adapted:
        clock, trained = time.perf_counter(), self.trained
        support = trained.shots(pictures[None], SEED)
        # a loss whose value means nothing, or that of images which the model reads before it is asked
        valued = steps > 0 and not trained.objective.model.surrogate
        points, losses, shown = [], [], budgets(steps) if steps else []
        for step, phi in enumerate(trained.path(support, steps)):
            if stop():
                raise SupersededError
            if valued:
                losses.append(trained.loss(phi, support))
            if step in shown:
                points.append(AdaptationPoint(step, trained.draw(phi, 1, STRIP, SEED)[0]))
        samples = trained.draw(phi, 1, n, SEED)[0]
        seconds = time.perf_counter() - clock
        gaps = distances(samples, pictures)
        among = distances(pictures, pictures) + np.diag(np.full(len(pictures), np.inf))
        apart = float(among.min(1).mean()) if len(pictures) > 1 else None
        return Adapted(
            self.label, str(self.folder), pictures, steps, points, losses, samples,
            gaps.argmin(1), gaps.min(1), apart, self.takes_steps, seconds,
        )  # fmt: skip


class Engine:
    """The runs of a demo, loaded and warmed up.

    Args:
        folders: of generators' runs.
        device: where they compute.

    Attributes:
        runners: in the order given.
        forms: those of their images.
        steps: what the page suggests, the most that one of them takes in its test; None if none takes any.

    Raises:
        MetagenError: a folder that is no generator's run, or is named twice.
    """

    def __init__(self, folders: Sequence[Path], device: str | torch.device = "cpu") -> None:
        if len({folder.resolve() for folder in folders}) < len(folders):
            raise MetagenError("a run is named twice: name each folder once")
        self.runners = [_runner(folder, device) for folder in folders]
        self.forms = sorted({runner.trained.form for runner in self.runners})
        taken = [runner.steps for runner in self.runners if runner.takes_steps]
        self.steps = min(max(taken), MAX_STEPS) if taken else None

    def warm_up(self, n: int) -> None:
        """Let every run adapt once, since the first time is slower, and measure the second time."""
        support = {form: _cross(form) for form in self.forms}
        for runner in self.runners:
            for _ in range(2):
                runner.seconds = runner.adapt(support, self.steps or 0, n).seconds

    def adapt(
        self, support: Support, steps: int, n: int, stop: Callable[[], bool] = _never
    ) -> Iterator[dict[int, Adapted]]:
        """Yield what is finished so far, by the run's position; the quickest run comes first.

        Raises:
            MetagenError, SupersededError: see :meth:`Runner.adapt`.
        """
        done: dict[int, Adapted] = {}
        for index in sorted(range(len(self.runners)), key=lambda i: self.runners[i].seconds):
            done[index] = self.runners[index].adapt(support, steps, n, stop)
            yield dict(done)

    def close(self) -> None:
        """Wait until nobody is served, for good: a process that ends amid a tensor's operation is aborted."""
        for runner in self.runners:
            runner.lock.acquire()


def _runner(folder: Path, device: str | torch.device) -> Runner:
    trained = Trained(folder, device=device)
    trained.check_generates()
    return Runner(folder, trained, _label(folder))


def _label(folder: Path) -> str:
    """Name a run by the choices of its configuration: learner, model, experiment."""
    choices = saved_choices(folder / ".hydra" / "hydra.yaml")
    names = [choices[group] for group in ("learner", "model", "experiment") if choices.get(group)]
    return " · ".join(names) or folder.name


def _cross(form: Form) -> np.ndarray:
    """Return a picture to warm up with, uint8 (1, H, W) or (1, H, W, 3)."""
    picture, middle = np.zeros((1, *form.shape), np.uint8), form.size // 2
    picture[:, middle, 2:-2] = picture[:, 2:-2, middle] = 255
    return picture
