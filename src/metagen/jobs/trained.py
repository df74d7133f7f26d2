"""A trained generator, loaded from its run, which adapts to new classes and draws them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from metagen.config.overrides import merged
from metagen.config.tree import conf_dir
from metagen.core.episode import Params, Shots
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.jobs.build import build_experiment, load_checkpoint
from metagen.report.pictures import to_uint8
from metagen.runs.reopen import saved_overrides
from metagen.training.checkpoints import read_checkpoint

MOST_CLASSES = 1_000_000
"""Of the training: a file may claim any number, and tables of that size would be made."""


class Trained:
    """A generator's run, loaded once, which adapts to new classes and draws them.

    Args:
        run: its folder.
        overrides: on top of the run's own, such as ``learner.test_steps=20``.

    Attributes:
        cfg: the run's configuration.
        size: side of its images in pixels.
        learner, objective: with the parameters of the best checkpoint.

    Raises:
        MetagenError: no run, no checkpoint or none that fits, or the run of a classifier.
    """

    def __init__(self, run: Path, overrides: Sequence[str] = ()) -> None:
        saved, checkpoint = saved_overrides(run)
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            self.cfg = compose("config", merged(saved, overrides))
        kind = self.cfg.task.get("kind", "supervised")
        if kind != "generate":
            raise MetagenError(f"{run} is no generator's run (its task is {kind}): name one that generates")
        self.size = int(self.cfg.data.size)
        experiment = build_experiment(self.cfg, _classes(checkpoint)).eval()
        load_checkpoint(experiment, checkpoint)
        self.learner, self.objective = experiment.learner, experiment.objective

    def support(self, pictures: np.ndarray, seed: int) -> Shots:
        """Return uint8 pictures (N, K, H, W), ink = 255, as the support set of N classes."""
        x = torch.from_numpy(pictures).unsqueeze(2).float() / 255
        ways, shots = pictures.shape[:2]
        return Shots(x, torch.arange(ways)[:, None].expand(ways, shots), rng.key(seed, 1))

    @torch.no_grad()
    def path(self, support: Shots, steps: int) -> Iterator[Params]:
        """Yield what adaptation makes of the parameters: phi_0, phi_1, ..., phi_steps, all of each."""
        params = self.objective.params()
        state = self.learner.begin(self.objective, params, support)
        yield {**params, **state.params}
        for index in range(steps):
            state = self.learner.step(self.objective, params, state, support, index)
            yield {**params, **state.params}

    @torch.no_grad()
    def adapt(self, support: Shots) -> Params:
        """Return phi after as many steps as in the run's test."""
        steps = self.learner.test_steps
        return self.learner.adapt(self.objective, self.objective.params(), support, steps)

    @torch.no_grad()
    def loss(self, phi: Params, shots: Shots) -> float:
        """Return L(phi; shots), by which gradient learners adapt (nats for a likelihood)."""
        return float(self.objective.loss(phi, shots))

    @torch.no_grad()
    def draw(self, phi: Params, ways: int, n: int, seed: int) -> np.ndarray:
        """Return n images of each of N classes, uint8 (N, n, H, W)."""
        labels = torch.arange(ways).repeat_interleave(n)
        return to_uint8(self.objective.call("sample", phi, labels, rng.key(seed, 2)).unflatten(0, (ways, n)))


def _classes(checkpoint: Path) -> int:
    """Return the number of training classes, which tells the sizes of a learner's tables."""
    try:
        classes = int(read_checkpoint(checkpoint)["hyper_parameters"]["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise MetagenError(f"{checkpoint} does not say of how many classes it is: train again") from error
    if not 1 <= classes <= MOST_CLASSES:
        raise MetagenError(
            f"{checkpoint} is of {classes} classes: expected 1 to {MOST_CLASSES:,}; train again"
        )
    return classes
