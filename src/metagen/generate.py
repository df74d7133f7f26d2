"""New images of a user's own classes: the job behind ``metagen generate``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from metagen import rng
from metagen.build import build_experiment, load_checkpoint
from metagen.cli import conf_dir
from metagen.episode import Shots
from metagen.errors import MetagenError
from metagen.pictures_in import read_classes
from metagen.record import to_uint8
from metagen.report.files import write_npz
from metagen.report.pictures import samples_grid
from metagen.runtime import merged, saved_overrides


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
    saved, checkpoint = saved_overrides(run)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", merged(saved, overrides))
    if cfg.task.get("kind") != "generate":
        raise MetagenError(f"{run} is no generator's run (its task is {cfg.task.get('kind', 'supervised')})")
    pictures, names = read_classes(images, cfg.data.size)
    samples = _samples(cfg, checkpoint, torch.from_numpy(np.asarray(pictures)), n, seed)
    _write(out, np.asarray(pictures), samples, names)
    count, shots = pictures.shape[:2]
    return f"{count} x {n} images from {count} classes of {shots}\nsamples {out / 'samples.png'}"


def _samples(cfg: DictConfig, checkpoint: Path, pictures: Tensor, n: int, seed: int) -> np.ndarray:
    """Adapt to uint8 pictures (N, K, H, W) and return uint8 samples (N, n, H, W)."""
    classes = torch.load(checkpoint, map_location="cpu", weights_only=True)["hyper_parameters"]["classes"]
    experiment = build_experiment(cfg, classes)
    load_checkpoint(experiment, checkpoint)
    ways, shots = pictures.shape[:2]
    labels = torch.arange(ways)
    support = Shots(
        pictures.unsqueeze(2).float() / 255, labels[:, None].expand(ways, shots), rng.key(seed, 1)
    )
    learner, objective = experiment.learner, experiment.objective
    with torch.no_grad():
        phi = learner.adapt(objective, objective.params(), support, learner.test_steps)
        drawn = objective.call("sample", phi, labels.repeat_interleave(n), rng.key(seed, 2))
    return to_uint8(drawn.unflatten(0, (ways, n)))


def _write(out: Path, pictures: np.ndarray, samples: np.ndarray, names: Sequence[str]) -> None:
    for name, images in zip(names, samples, strict=True):
        (out / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(out / name / f"{index:04d}.png")
    write_npz(out / "samples.npz", support=pictures, samples=samples, classes=list(names))
    samples_grid(pictures, samples, list(names), out / "samples.png")
