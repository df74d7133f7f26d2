"""The job of ``metagen export --onnx``: an adapted sampler as a file for other runtimes."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metagen.core.episode import Params
from metagen.core.objective import Objective
from metagen.data.user_pictures import read_classes
from metagen.errors import MetagenError, UsageError, installing
from metagen.files import check_new_file, write_bytes
from metagen.jobs.generate import check_overrides
from metagen.jobs.onnx_graph import BATCH, Graph, drawn, graph
from metagen.jobs.trained import Trained
from metagen.ranges import Seed, fits, refusal

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra ``onnx``."""
TOLERANCE = 1e-4
"""By which an image may differ from the original's: rounding, which strokes of high contrast magnify."""
LARGEST = 2**31 - 1
"""Bytes of a file: more cannot be one of ONNX."""


def export_onnx(
    run: str | Path,
    file: Path,
    images: Path,
    seed: int = 0,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> str:
    """Adapt a run's checkpoint to the pictures in ``images`` and write what then draws their classes.

    The file is compared with the original in onnxruntime before it is written: with the same noise both draw
    the same images, within :data:`TOLERANCE`.

    Args:
        run: folder of a generator's run, or what stands for one.
        file: new file, ``*.onnx``.
        images: one folder per class with K pictures each, as ``metagen generate`` takes them.
        seed: of the noise that the model draws while it adapts, and of the comparison.
        overrides: on top of the run's own, such as ``learner.test_steps=20``.
        force: whether to write over ``file``.

    Returns:
        A line for the user.

    Raises:
        MetagenError: bad input, a model that cannot be a graph, or one that draws something else as one;
            nothing was written.
    """
    _check(file, images, seed, force)
    check_overrides(overrides)
    trained = Trained(run, overrides, torch.device("cpu"))
    trained.check_generates()
    pictures, names = read_classes(images, read=trained.form.read)
    phi = trained.adapt(trained.shots(pictures, seed))
    made = graph(trained.objective, phi, len(names))
    _describe(made, trained, names)
    if (size := made.proto.ByteSize()) > LARGEST:
        raise MetagenError(
            f"the graph takes {size / 2**30:.1f} GiB, and a file of ONNX at most 2: use export --to"
        )
    data = made.proto.SerializeToString()
    gap = difference(data, made, trained.objective, phi, len(names), seed)
    write_bytes(file, data)
    inputs = ", ".join(["y", *(one.name for one in made.noise)])
    return (
        f"{file}: {size / 2**20:.1f} MiB, draws {len(names)} classes from {inputs}; with the same noise "
        f"onnxruntime and the original differ by {gap:.1g} at most"
    )


def _check(file: Path, images: Path, seed: int, force: bool) -> None:
    """Refuse what is wrong before anything is loaded."""
    if file.suffix.lower() != ".onnx":
        raise UsageError(f"--onnx {file}: expected the name of a file that ends in .onnx")
    if not fits(seed, Seed):
        raise refusal("--seed", seed, Seed, " ")
    check_new_file("--onnx", file, force)
    if file.resolve().is_relative_to(images.resolve()):
        raise MetagenError(f"--onnx {file} lies in --images {images}: name another file")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise MetagenError(f"--onnx needs {' and '.join(missing)}: {installing('onnx')}")


def _describe(made: Graph, trained: Trained, names: Sequence[str]) -> None:
    """Write into the graph what feeds it and what comes out."""
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in made.proto.graph.input
    }
    kinds = {"normal": "standard normal", "uniform": "uniform in (0, 1)"}
    noise = {
        one.name: {"kind": kinds[one.name.partition("_")[0]], "shape": shapes[one.name]} for one in made.noise
    }
    form = trained.form
    said: dict[str, Any] = {
        "classes": list(names), "noise": noise, "size": form.size, "channels": form.channels,
        "range": [0, 1], "images": f"({BATCH}, channels, size, size), float32, in drawings ink is 1",
        "y": f"({BATCH},), int64, places in classes", "model": type(trained.objective.model).__name__,
    }  # fmt: skip
    for key, value in said.items():
        entry = made.proto.metadata_props.add()
        entry.key, entry.value = (
            key,
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        )


def difference(data: bytes, made: Graph, objective: Objective, phi: Params, ways: int, seed: int) -> float:
    """Return the largest difference of a pixel between a graph in onnxruntime and the original.

    Raises:
        MetagenError: onnxruntime cannot run the graph, or the difference is more than :data:`TOLERANCE`.
    """
    model = type(objective.model).__name__
    gaps = []
    for y in (torch.arange(max(4, ways)) % ways, torch.zeros(1, dtype=torch.int64)):
        wanted = drawn(objective, phi, y, seed)
        noise = {one.name: one.given(x).numpy() for one, (_, x) in zip(made.noise, wanted.noise, strict=True)}
        gaps.append(float(np.abs(_run(data, model, y, noise) - wanted.images.numpy()).max()))
    if not max(gaps) <= TOLERANCE:  # nor not a number
        raise MetagenError(
            f"as ONNX {model} draws other images: with the same noise they differ by {max(gaps):.2g}, more "
            f"than {TOLERANCE:g}; nothing was written: use metagen generate"
        )
    return max(gaps)


def _run(data: bytes, model: str, y: Tensor, noise: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (images,) = session.run(None, {"y": y.numpy(), **noise})
    except Exception as error:  # of onnxruntime's own, without a common base
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise MetagenError(
            f"onnxruntime cannot run {model} as ONNX ({reason}): use metagen generate"
        ) from error
    return np.asarray(images)
