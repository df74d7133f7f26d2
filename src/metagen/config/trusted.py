"""The classes that a configuration may name, since it may come from a stranger, and their construction."""

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from metagen.config.allowed import allowed
from metagen.console import printable
from metagen.errors import MetagenError, UsageError, nearest
from metagen.variables import ALLOW

CLASSES: dict[str, tuple[type, ...]] = {
    "torch.nn": (nn.Module,),
    "torch.optim": (Optimizer, LRScheduler),
    "lightning": (L.Trainer, Strategy, Profiler, Callback, Logger),
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
OF_OPTUNA = ("optuna.samplers", "optuna.pruners")
"""Packages of Optuna, which need not be installed, whose classes a configuration may name."""
UNSAFE = ("torchvision.datasets.lsun",)
"""What unpickles a file of the folder that it is given."""
KEYWORDS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""What is said of a call, beside its arguments."""


def resolve(name: Any, where: str) -> Any:
    """Return the class or function that a ``_target_`` names; nothing is imported that must not be.

    What counts is where a thing is defined: ``torch.nn.modules.module.torch.os.system`` is the system's.

    Args:
        name: dotted.
        where: path of the node, for the error.

    Raises:
        MetagenError: it does not exist, or a configuration may not run it.
    """
    trusted = allowed()
    if not isinstance(name, str) or not _below(name, [*CLASSES, *OF_OPTUNA, *trusted]):
        raise _refused(name, where)
    try:
        target = _located(name)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise MetagenError(f"{where}._target_={name}: cannot be imported ({reason})") from error
    if not (name in trusted or _below(_home(target), trusted) or _harmless(target)):
        raise _refused(name, where)
    return target


def instantiate(node: Any, where: str = "", **arguments: Any) -> Any:
    """Return what a node of the configuration describes; None for None.

    As Hydra's function, ``_target_`` is called with the other keys, nodes within them first, ``_args_`` are
    its positional arguments, ``_partial_`` makes a function that still takes more, and below
    ``_recursive_: false`` nodes stay as they are. But interpolations are resolved once and before: a text
    that looks like one afterwards stays a text, and lists and mappings are plain.

    Args:
        node: a configuration or plain values.
        where: path of the node, for errors.
        arguments: of the outermost call, in the place of those in ``node``.

    Raises:
        MetagenError: a ``_target_`` in it is none that may be run, or does not take its arguments.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    for path, name in targets(plain, where):
        resolve(name, path)
    if isinstance(plain, Mapping) and _is_target(plain):
        return _call(plain, where, arguments)
    return _built(plain, where)


def _built(node: Any, where: str) -> Any:
    if _is_target(node):
        return _call(node, where)
    if isinstance(node, Mapping):
        return {key: _built(value, f"{where}.{key}") for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_built(value, f"{where}[{index}]") for index, value in enumerate(node)]
    return node


def _call(node: Mapping[str, Any], where: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Call what a node names; its name is looked up here, where it is run."""
    target = resolve(node["_target_"], where)
    given = {key: value for key, value in node.items() if key not in KEYWORDS}
    positional = node.get("_args_", [])
    if node.get("_recursive_", True):
        given, positional = _built(given, where), _built(positional, f"{where}._args_")
    given |= arguments or {}
    try:
        if node.get("_partial_", False):
            return functools.partial(target, *positional, **given)
        return target(*positional, **given)
    except MetagenError:
        raise
    except Exception as error:
        raise UsageError(f"{where}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _is_target(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


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


def _located(name: str) -> Any:
    """Return what a dotted name stands for, importing the modules on the way.

    Hydra's function of this kind prints the trace of a failure.
    """
    path, *rest = name.split(".")
    found: Any = import_module(path)
    for part in rest:
        path = f"{path}.{part}"
        if inspect.ismodule(found) and not hasattr(found, part):
            if not hasattr(found, "__path__"):
                raise AttributeError(f"{found.__name__} has no {part}{nearest(part, vars(found))}")
            import_module(path)
        found = getattr(found, part)
    return found


def _home(target: Any) -> str:
    """Return the module in which a thing is defined."""
    return str(getattr(target, "__module__", None) or "")


def _below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _harmless(target: Any) -> bool:
    home = _home(target)
    if _below(home, UNSAFE):
        return False
    if inspect.isclass(target) and _below(home, OF_OPTUNA):
        return target.__name__.endswith(("Sampler", "Pruner"))
    if inspect.isclass(target):
        return any(_below(home, [place]) and issubclass(target, kinds) for place, kinds in CLASSES.items())
    return inspect.isfunction(target) and "." not in target.__qualname__ and _below(home, FUNCTIONS)


def _refused(name: Any, where: str) -> MetagenError:
    name = printable(str(name))
    return MetagenError(
        f"{printable(where)}._target_={name}: a configuration may name models, learners, data and metrics of "
        "metagen, modules and optimizers of torch, and lightning's Trainer, callbacks and loggers; "
        f"if you wrote it or have read what it does, allow this one by {ALLOW}={name} in the environment"
    )
