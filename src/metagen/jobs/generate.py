"""New images of a user's own classes: the job of ``metagen generate``, and what the demo shares with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from metagen.data.user_pictures import read_classes
from metagen.errors import MetagenError
from metagen.files import write_npz
from metagen.jobs.trained import Trained
from metagen.report.pictures import samples_grid


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
    trained.check_generates()
    pictures, names = read_classes(images, trained.size)
    classes, shots = pictures.shape[:2]
    samples = trained.draw(trained.adapt(trained.shots(pictures, seed)), classes, n, seed)
    _write(out, pictures, samples, names)
    return f"{classes} x {n} images from {classes} classes of {shots}\nsamples {out / 'samples.png'}"


def _write(out: Path, pictures: np.ndarray, samples: np.ndarray, names: Sequence[str]) -> None:
    for name, images in zip(names, samples, strict=True):
        (out / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(out / name / f"{index:04d}.png")
    write_npz(out / "samples.npz", support=pictures, samples=samples, classes=list(names))
    samples_grid(pictures, samples, list(names), out / "samples.png")
