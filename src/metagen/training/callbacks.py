"""The callbacks that a configuration names, beside those that every training has."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.callbacks import Callback, LearningRateMonitor

from metagen.config.trusted import instantiate
from metagen.errors import MetagenError

PLACES = ("save_dir", "dirpath", "log_dir", "filename", "dir", "sub_dir")
"""Arguments of callbacks, loggers and profilers that name what they write."""
LOGGED = ("train/loss", "train/skipped", "val/loss")
"""What a training logs by itself."""
FOLDERS = ("name", "version")
"""Those of a logger of files, which Lightning makes folders of."""


def check_places(node: Any, where: str) -> None:
    """Refuse a place outside of the run's folder: a configuration may come from a stranger.

    Raises:
        MetagenError: there is one.
    """
    if isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_places(value, f"{where}[{index}]")
    if isinstance(node, Mapping):
        files = str(node.get("_target_")).endswith(("CSVLogger", "TensorBoardLogger"))
        for key, value in node.items():
            if (key in PLACES or (files and key in FOLDERS)) and isinstance(value, str) and _outside(value):
                raise MetagenError(
                    f"{where}.{key}={value}: expected a folder within that of the run, such as {key}=mine"
                )
            check_places(value, f"{where}.{key}")


def _outside(path: str) -> bool:
    return path.startswith(("/", "~", "\\")) or ".." in path or ":" in path


def make_callbacks(nodes: Mapping[str, Any]) -> list[Callback]:
    """Return the callbacks of a configuration.

    Raises:
        MetagenError: a node describes none, or one does not take its arguments.
    """
    made = []
    for name, node in nodes.items():
        one = instantiate(node, f"callbacks.{name}")
        if not isinstance(one, Callback):
            raise MetagenError(
                f"callbacks.{name}={node}: expected a node with a _target_, the class of a callback"
            )
        made.append(one)
    return made


def check_callbacks(callbacks: list[Callback], loggers: bool) -> None:
    """Refuse callbacks that have nothing to look at, or nothing to write into.

    Args:
        callbacks: of the configuration.
        loggers: whether there is a logger.

    Raises:
        MetagenError: there is one.
    """
    others = any(not type(one).__module__.startswith(("lightning.", "metagen.")) for one in callbacks)
    for one in callbacks:
        name, monitor = type(one).__name__, getattr(one, "monitor", None)
        if isinstance(one, LearningRateMonitor) and not loggers:
            raise MetagenError(f"{name} writes into the curves, of which logger=none has none: leave one out")
        if isinstance(monitor, str) and monitor not in LOGGED and not others:
            raise MetagenError(
                f"{name} looks at {monitor}, which is not logged: name one of {', '.join(LOGGED)}"
            )


def check_validated(callbacks: list[Callback]) -> None:
    """Refuse callbacks that look at a validation, where there is none.

    Raises:
        MetagenError: there is one.
    """
    for one in callbacks:
        monitor = getattr(one, "monitor", None)
        if str(monitor).startswith("val/"):
            raise MetagenError(
                f"{type(one).__name__} looks at {monitor}, but there is no validation: set task.val_episodes "
                f"(or, of a supervised task, task.val_images), or leave it out"
            )
