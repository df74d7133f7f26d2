"""New images of a user's own classes: the job of ``metagen generate``, and what the demo shares with it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from metagen import rng
from metagen.build import build_experiment, load_checkpoint
from metagen.cli import conf_dir
from metagen.episode import Params, Shots
from metagen.errors import MetagenError
from metagen.pictures_in import read_classes
from metagen.record import to_uint8
from metagen.report.files import write_npz
from metagen.report.pictures import samples_grid
from metagen.runtime import merged, saved_overrides


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
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return int(saved["hyper_parameters"]["classes"])
    except Exception as error:
        raise MetagenError(
            f"{checkpoint} is no readable checkpoint ({type(error).__name__}): train again"
        ) from error


def generate(run: Path, images: Path, out: Path, n: int, seed: int, overrides: Sequence[str]) -> str:
    """Adapt a run's checkpoint to the pictures in ``images`` and write N x n new images to ``out``.

    Args:
        run: folder of a generator's run.
        images: one folder per class with K pictures each.
        out: new (or empty) folder: CLASS/0000.png ..., samples.png and samples.npz.
        n: images a class.
        seed: of the samples.
        overrides: on top of the run's own, such as ``learner.test_steps=20``.

    Returns:
        A line for the user.

    Raises:
        MetagenError: bad input; nothing was written.
    """
    if n < 1:
        raise MetagenError(f"--n {n}: expected at least 1 image a class")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MetagenError(f"--out {out} exists and is not empty: name a new folder")
    trained = Trained(run, overrides)
    pictures, names = read_classes(images, trained.size)
    classes, shots = pictures.shape[:2]
    samples = trained.draw(trained.adapt(trained.support(pictures, seed)), classes, n, seed)
    _write(out, pictures, samples, names)
    return f"{classes} x {n} images from {classes} classes of {shots}\nsamples {out / 'samples.png'}"


def _write(out: Path, pictures: np.ndarray, samples: np.ndarray, names: Sequence[str]) -> None:
    for name, images in zip(names, samples, strict=True):
        (out / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(out / name / f"{index:04d}.png")
    write_npz(out / "samples.npz", support=pictures, samples=samples, classes=list(names))
    samples_grid(pictures, samples, list(names), out / "samples.png")
