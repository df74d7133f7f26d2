"""A ZIP file in memory of what the page shows."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metagen import __version__
from metagen.data.form import Form
from metagen.demo.adapted import Adapted
from metagen.demo.engine import SEED
from metagen.files import scratch, write_json, write_npz
from metagen.report.pictures import samples_grid


@dataclass(frozen=True)
class Visit:
    """What one visitor sees; it lives in the visitor's session and nowhere else.

    support: the images by form, as the learners saw them.
    source:  where they come from, such as ``drawings`` or ``mnist: 7``.
    steps:   as chosen on the page.
    results: in the order of the runs.
    """

    support: Mapping[Form, Any]
    source: str
    steps: int = 0
    results: Sequence[Adapted] = ()


def archive(visit: Visit) -> bytes:
    """Return a ZIP with ``settings.json`` and, for each run, ``NUMBER/samples.npz`` and ``.png``.

    The arrays: ``support`` (K, H, W), ``samples`` (n, H, W), both uint8, ``nearest`` and ``distance``
    (n,), ``steps`` (S,), ``step_samples`` (S, m, H, W) and ``loss`` (of every step); images in colour are
    (..., H, W, 3).
    """
    buffer = io.BytesIO()
    with scratch(name="metagen-demo") as root, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        write_json(root / "settings.json", _settings(visit))
        for number, found in enumerate(visit.results):
            _write(root / str(number), found)
        for path in sorted(root.rglob("*.*")):
            file.write(path, path.relative_to(root))
    return buffer.getvalue()


def _write(folder: Path, found: Adapted) -> None:
    write_npz(
        folder / "samples.npz",
        support=found.support,
        samples=found.samples,
        nearest=found.nearest,
        distance=found.distance,
        steps=[point.step for point in found.points],
        step_samples=[point.samples for point in found.points],
        loss=list(found.losses),
    )
    samples_grid(found.support[None], found.samples[None], [found.label], folder / "samples.png")


def _settings(visit: Visit) -> dict[str, Any]:
    return {
        "source": visit.source,
        "steps": visit.steps,
        "seed": SEED,
        "versions": {"metagen": __version__, "torch": torch.__version__},
        "runs": [
            {
                "number": number,
                "label": found.label,
                "folder": found.folder,
                "samples": len(found.samples),
                "support": len(found.support),
                "size": found.support.shape[1],
                "steps": found.steps,
                "seconds": found.seconds,
                "mean_distance_to_nearest": float(found.distance.mean()),
                "mean_distance_between_support": found.apart,
            }
            for number, found in enumerate(visit.results)
        ],
    }
