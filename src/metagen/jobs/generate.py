"""New images of a user's own classes: the job of ``metagen generate``, and what the demo shares with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from metagen.config.overrides import key_of
from metagen.data.user_pictures import read_classes
from metagen.errors import MetagenError, UsageError
from metagen.files import check_new_folder, new_folder, write_npz
from metagen.functional.device import device_of, in_words
from metagen.jobs import memory
from metagen.jobs.trained import Trained
from metagen.ranges import PositiveInt, Seed, fits, refusal
from metagen.report.pictures import samples_grid

INSTEAD = {
    "seed": "--seed is that of what is drawn",
    "samples": "it is how many a test draws, as --n of generate",
    "task.shots": "as many are read as there are in each folder of --images",
    "task.ways": "as many classes are drawn as --images has folders",
}
"""Key -> what says it where pictures are given."""


def generate(
    run: Path,
    images: Path,
    out: Path,
    n: int,
    seed: int,
    overrides: Sequence[str],
    force: bool = False,
    device: str = "cpu",
) -> str:
    """Adapt a run's checkpoint to the pictures in ``images`` and write N x n new images to ``out``.

    Args:
        run: folder of a generator's run.
        images: one folder per class with K pictures each.
        out: new (or empty) folder: CLASS/0000.png ..., samples.png and samples.npz.
        n: images a class.
        seed: of the samples.
        overrides: on top of the run's own, such as ``learner.test_steps=20``.
        force: whether to write over what an earlier call left in ``out``; other files in it stay.
        device: where the run computes, see :func:`metagen.functional.device.device_of`.

    Returns:
        A line for the user.

    Raises:
        MetagenError: bad input; nothing was written.
    """
    for name, value, hint in (("--n", n, PositiveInt), ("--seed", seed, Seed)):
        if not fits(value, hint):
            raise refusal(name, value, hint, " ")
    check_new_folder("--out", out, force)
    if _within(out, images) or _within(images, out):
        raise MetagenError(f"--out {out} and --images {images} lie in each other: name a new folder")
    check_overrides(overrides)
    trained = Trained(run, overrides, device_of(device))
    trained.check_generates()
    pictures, names = read_classes(images, read=trained.form.read)
    _check_names(images, names)
    classes, shots = pictures.shape[:2]
    count = classes * n
    memory.refuse(16 * n * pictures[:, 0].size, f"{count:,} images", "--n")
    samples = trained.draw(trained.adapt(trained.shots(pictures, seed)), classes, n, seed)
    with new_folder(out, _earlier(out)) as folder:
        _write(folder, pictures, samples, names)
    where = in_words(trained.device)
    return (
        f"{classes} x {n} images from {classes} classes of {shots}, on {where}\nsamples {out / 'samples.png'}"
    )


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides of what the given pictures and the options of a command say.

    Raises:
        MetagenError: there is one.
    """
    for text in overrides:
        key = key_of(text)
        if key in ("seed", "samples") or key.partition(".")[0] in ("task", "metric", "metrics"):
            why = INSTEAD.get(key, "it is of a test")
            raise UsageError(f"{text} changes nothing here: {why}; leave it out")


def _within(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


def _check_names(images: Path, names: Sequence[str]) -> None:
    """Refuse a class whose folder of samples would have the name of another file of the output."""
    for name in names:
        if name.lower() in ("samples.png", "samples.npz"):
            raise MetagenError(
                f"class folder {images / name} is named like a file of the output: give it another name"
            )


def _earlier(out: Path) -> list[str]:
    """Return the files that an earlier call wrote into ``out``, as its arrays tell."""
    try:
        with np.load(out / "samples.npz", allow_pickle=False) as file:
            classes, count = [str(name) for name in file["classes"]], int(file["samples"].shape[1])
    except Exception:  # whatever is wrong with it, nothing can be said to be ours
        return []
    own = [name for name in classes if name not in ("", ".", "..") and Path(name).name == name]
    return [f"{name}/{index:04d}.png" for name in own for index in range(count)]


def _write(out: Path, pictures: np.ndarray, samples: np.ndarray, names: Sequence[str]) -> None:
    for name, images in zip(names, samples, strict=True):
        (out / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(out / name / f"{index:04d}.png")
    write_npz(out / "samples.npz", support=pictures, samples=samples, classes=list(names))
    samples_grid(pictures, samples, list(names), out / "samples.png")
