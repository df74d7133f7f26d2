"""What a configuration may run: it may come from a stranger."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hydra.utils
import lightning as L
from hydra.errors import InstantiationException
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from metagen.errors import MetagenError
from metagen.variables import ALLOW

CLASSES: dict[str, tuple[type, ...]] = {
    "torch.nn": (nn.Module,),
    "torch.optim": (Optimizer, LRScheduler),
    "lightning": (L.Trainer, Strategy, Profiler),
    "metagen.training.parallel": (Strategy,),
    "metagen.data": (object,),
    "torchvision.datasets": (Dataset,),
    "metagen.models": (object,),
    "metagen.learners": (object,),
    "metagen.metrics": (object,),
    "metagen.evaluation.judge": (object,),
    "metagen.evaluation.judge_protonet": (object,),
    "metagen.evaluation.likelihood": (object,),
}
"""Of which packages a configuration may name classes, and of which kinds."""
FUNCTIONS = ("metagen.models", "metagen.learners")
"""Of which packages it may name functions, too."""


def resolve(name: Any, where: str) -> Any:
    """Return the class or function that a ``_target_`` names; nothing is imported that must not be.

    What counts is where a thing is defined: ``torch.nn.modules.module.torch.os.system`` is the system's.

    Args:
        name: dotted.
        where: path of the node, for the error.

    Raises:
        MetagenError: it does not exist, or a configuration may not run it.
    """
    trusted = [part.strip() for part in os.environ.get(ALLOW, "").split(",") if part.strip()]
    if not isinstance(name, str) or not _below(name, [*CLASSES, *trusted]):
        raise _refused(name, where)
    try:
        target = hydra.utils.get_object(name)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise MetagenError(f"{where}._target_={name}: cannot be imported ({reason})") from error
    if not _below(name, trusted) and not _harmless(target):
        raise _refused(name, where)
    return target


def instantiate(node: Any, where: str = "", **arguments: Any) -> Any:
    """Return what a node of the configuration describes, as Hydra's function does; None for None.

    What is checked is what is made: interpolations are resolved before, once.

    Raises:
        MetagenError: a ``_target_`` in it is none that a configuration may run.
    """
    if node is None:
        return None
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    for path, name in targets(plain, where):
        resolve(name, path)
    try:
        return hydra.utils.instantiate(OmegaConf.create(plain), **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, MetagenError):
            raise cause or error from None
        raise MetagenError(f"{where}: {' '.join(str(cause).split())}") from error


def targets(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the ``_target_`` of all nodes that have one, at any depth."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield where or "it", node["_target_"]
        for key, value in node.items():
            yield from targets(value, f"{where}.{key}".lstrip("."))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from targets(value, f"{where}[{index}]")


def _below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _harmless(target: Any) -> bool:
    home = getattr(target, "__module__", None) or ""
    if inspect.isclass(target):
        return any(_below(home, [place]) and issubclass(target, kinds) for place, kinds in CLASSES.items())
    return inspect.isfunction(target) and "." not in target.__qualname__ and _below(home, FUNCTIONS)


def _refused(name: Any, where: str) -> MetagenError:
    package = str(name).partition(".")[0]
    return MetagenError(
        f"{where}._target_={name}: a configuration may name models, learners, data and metrics of metagen, "
        "modules and optimizers of torch, and lightning's Trainer; if this one is not from a stranger, "
        f"allow the package by {ALLOW}={package} in the environment"
    )
