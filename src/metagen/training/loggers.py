"""The loggers of a run: where each of them writes, and under which name."""

import csv
import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from PIL import Image

from metagen.config.overrides import key_of
from metagen.config.trusted import instantiate
from metagen.errors import MetagenError

NEEDS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
"""Packages that loggers of Lightning's need and metagen does not, by the name of the class."""
LONGEST = 120
"""Characters of a name made of overrides, which becomes that of a folder."""
UNNAMED = {"TensorBoardLogger": "version", "WandbLogger": "name", "MLFlowLogger": "run_name"}
"""Which argument names a run, where null leaves the name to the run's overrides."""


def check_loggers(nodes: Mapping[str, Any]) -> None:
    """Refuse loggers whose package is not installed, and nodes that describe none.

    Raises:
        MetagenError: there is one.
    """
    for name, node in nodes.items():
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise MetagenError(
                f"logger.{name}={node}: expected a node with a _target_, the class of a logger"
            )
        package = NEEDS.get(_class_name(node))
        if package is not None and importlib.util.find_spec(package) is None:
            raise MetagenError(f"logger={name} needs a package that is not installed: pip install {package}")


def label(overrides: Sequence[str]) -> str:
    """Return a name for a run from its overrides, as one part of a path: ``learner=maml,seed=0``.

    >>> label(["experiment=quickstart", "learner=maml", "data.root=/somewhere else"])
    'experiment=quickstart,learner=maml,data.root=_somewhere_else'
    >>> label([])
    'defaults'
    """
    words = [word for word in overrides if key_of(word) != "checkpoint"]
    words.sort(key=lambda word: "." in key_of(word))  # choices and the seed first: the rest may be cut off
    text = re.sub(r"[^\w=.,+-]", "_", ",".join(words))
    return text[:LONGEST].strip(".") or "defaults"


def make_loggers(
    nodes: Mapping[str, Any], folder: Path, name: str, resumed: int | None = None
) -> list[Logger]:
    """Return the loggers of a run.

    Args:
        nodes: of the configuration, by name.
        folder: of the run; relative folders of loggers lie in it.
        name: of the run.
        resumed: the step that a training goes on from: what was logged after it is logged again.
    """
    made = []
    for key, node in nodes.items():
        kind = _class_name(node)
        own: dict[str, Any] = {}
        if "save_dir" in node:
            own["save_dir"] = str(folder / str(node["save_dir"]))
        if kind in UNNAMED and node.get(UNNAMED[kind]) is None:
            own[UNNAMED[kind]] = _kept_name(node, folder) or name
        if kind == "TensorBoardLogger" and resumed is not None:
            own["purge_step"] = resumed
        if kind == "WandbLogger" and node.get("id") is None:
            own |= {"id": hashlib.sha256(str(folder).encode()).hexdigest()[:12], "resume": "allow"}
        logger = instantiate(node, f"logger.{key}", **own)
        _go_on(logger, folder, resumed)
        made.append(logger)
    return made


def _kept_name(node: Mapping[str, Any], folder: Path) -> str | None:
    """Return the name under which TensorBoard's logger has written in a run's folder before.

    A resumed run may have more overrides, and its curves are to stay in one place.
    """
    if _class_name(node) != "TensorBoardLogger":
        return None
    place = folder / str(node["save_dir"]) / str(node.get("name") or "")
    found = [path for path in place.glob("*") if any(path.glob("events.out.tfevents.*"))]
    return max(found, key=lambda path: path.stat().st_mtime).name if found else None


def _go_on(logger: Logger, folder: Path, resumed: int | None) -> None:
    """Let a logger of files go on where it was: Lightning's would begin anew, or beside what there is."""
    if resumed is None:
        return
    if isinstance(logger, TensorBoardLogger) and any(folder.glob("events.out.tfevents.*")):
        logger._name = logger._version = ""  # a run of before these had a folder of their own
    if isinstance(logger, CSVLogger):
        path = Path(logger.log_dir) / "metrics.csv"
        rows = list(csv.DictReader(path.open(encoding="utf-8", newline=""))) if path.is_file() else []
        kept = [
            {key: value for key, value in row.items() if value not in ("", None)}
            for row in rows
            if str(row.get("step", "")).isdigit() and int(row["step"]) < resumed
        ]
        logger.experiment.metrics.extend(kept)  # the file itself is removed by the first use


def _class_name(node: Mapping[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def takes_images(logger: Logger) -> bool:
    """Return whether a logger shows images."""
    return isinstance(logger, TensorBoardLogger) or type(logger).__name__ in ("WandbLogger", "MLFlowLogger")


def log_image(logger: Any, name: str, image: Any, step: int) -> None:
    """Log an image, uint8 (H, W) or (H, W, C), to a logger that shows images."""
    pixels = np.asarray(image)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")
    elif type(logger).__name__ == "WandbLogger":
        logger.log_image(name, [pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels], step=step)
    elif type(logger).__name__ == "MLFlowLogger":
        picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        logger.experiment.log_image(logger.run_id, picture, key=name, step=step)


def log_test(logger: Any, hyperparameters: dict[str, Any], means: dict[str, float], step: int) -> None:
    """Log what the test found, beside the hyperparameters by which runs are compared."""
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(hyperparameters, dict(means))
        return
    logger.log_hyperparams(hyperparameters)
    logger.log_metrics(means, step)


def log_curve(logger: Any, points: Sequence[Mapping[str, Any]]) -> None:
    """Log the metrics over the number of adaptation steps, where a logger has curves over another number."""
    if isinstance(logger, TensorBoardLogger):
        for point in points:
            for name, value in point["metrics"].items():
                logger.experiment.add_scalar(f"adaptation/{name}", value["mean"], point["step"])
