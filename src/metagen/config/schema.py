"""Check a composed configuration against the constructors that it names, before anything is built.

The signature of a ``_target_`` is the schema of its node: keys are its arguments, values must fit
its annotations, their ranges included. So a new learner or model brings its schema with it.
"""

import inspect
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ForwardRef, Literal, TypeVar

import torch

from metagen.config.borrowed import borrowed
from metagen.config.keys import NODES, REQUIRED, VALUES
from metagen.config.trusted import resolve
from metagen.errors import UsageError, nearest
from metagen.ranges import describe, hints, refusal, shown
from metagen.ranges import fits as in_range

PARTIAL = ("optimizer", "scheduler")
"""Nodes that are completed where their objects are known."""
READ_BY_OTHERS = ("data", "trainer")
"""Nodes whose values stand in others, too: checked first, so that a line names the key that was set."""
INT64 = 2**63
SINCE = ("autocast", "curves", "importance_samples")
"""Keys that runs of earlier versions do not have."""


def check(config: Mapping[str, Any]) -> None:
    """Check every node of a resolved configuration.

    Raises:
        UsageError: an unknown key (with the nearest right one), a missing or mistyped value, or one that is
            out of its range.
    """
    known = [*VALUES, *NODES]
    for key, value in sorted(config.items(), key=lambda one: one[0] not in READ_BY_OTHERS):
        if key in ("experiment", "size"):
            raise UsageError(
                f"the YAML file of {key} needs '# @package _global_' as its first line, and keys below it"
            )
        if key == "metric":
            raise UsageError(
                "the YAML file of a metric needs '# @package metrics.NAME' as its first line, NAME the file's"
            )
        if key not in known:
            raise UsageError(f"no key '{key}'{nearest(key, known)} (known: {', '.join(known)})")
        if key in VALUES and not fits(value, VALUES[key]):
            raise refusal(key, value, VALUES[key])
        if key in NODES and key not in REQUIRED and not isinstance(value, Mapping | None):
            raise UsageError(f"{key}={shown(value)}: expected a node with keys, or null")
        _check_node(value, key)
    for key in REQUIRED:
        value = config.get(key)
        if not (isinstance(value, Mapping) and "_target_" in value):
            raise UsageError(
                f"{key}: expected a node with a _target_, the class of the {key}, but got {shown(value)}"
            )
        if bool(value.get("_partial_")) != (key in PARTIAL):
            expected = "true" if key in PARTIAL else "false"
            raise UsageError(f"{key}._partial_={shown(value.get('_partial_'))}: expected {expected}")
    for key in VALUES:
        if key not in config and key not in SINCE:
            raise UsageError(f"{key} is missing: expected {describe(VALUES[key])}")
    _check_named(config)


def _check_named(config: Mapping[str, Any]) -> None:
    """Refuse metrics, or a likelihood, that are none: names with nothing that measures below them."""
    if not config.get("metrics"):
        raise UsageError("metric: expected one at least, such as metric=[recognised,coverage]")
    nodes = {f"metrics.{name}": node for name, node in config["metrics"].items()}
    nodes |= {key: config[key] for key in ("likelihood", "test_data") if config.get(key)}
    for key, node in nodes.items():
        if not (isinstance(node, Mapping) and "_target_" in node):
            raise UsageError(f"{key}={shown(node)}: expected a node with a _target_; leave it out by ~{key}")
        if node.get("_partial_"):
            raise UsageError(f"{key}._partial_=true: expected false")


def _check_node(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, path)
        for key, value in node.items():
            _check_node(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _check_node(value, f"{path}[{index}]")


def _check_call(node: Mapping[str, Any], path: str) -> None:
    """Compare one node with the signature of its target."""
    target = resolve(node["_target_"], path)
    for key, hint in SAID_OF_A_CALL.items():
        if key in node and not fits(node[key], hint):
            raise refusal(f"{path}.{key}", node[key], hint)
    parameters, open_ended = _parameters(target)
    declared = declarations(target)
    for key, value in node.items():
        if str(key).startswith("_"):
            continue
        if key not in parameters and not open_ended:
            way = nearest(str(key), parameters) or f"; leave it out by ~{path}.{key}"
            raise UsageError(
                f"{path}.{key} is no argument of {node['_target_']}{way} "
                f"(it takes {', '.join(parameters) or 'none'})"
            )
        if isinstance(value, Mapping) and "_target_" in value:
            resolve(value["_target_"], f"{path}.{key}")
        if not fits(value, declared.get(key, Any)):
            raise refusal(f"{path}.{key}", value, declared.get(key, Any))
    if not node.get("_partial_", False) and not node.get("_args_"):
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and name not in node:
                raise UsageError(f"{path}.{name} is missing: {node['_target_']} needs it")


def _parameters(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the arguments that a target takes by name, and whether it takes any others."""
    if inspect.isclass(target) and target.__init__ is torch.nn.Module.__init__:
        return {}, False
    signed = inspect.signature(target).parameters
    named = {n: p for n, p in signed.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in signed.values())


SAID_OF_A_CALL: dict[str, Any] = {
    "_partial_": bool,
    "_recursive_": bool,
    "_args_": list,
    "_convert_": Literal["none", "partial", "object", "all"],
}
"""Keys of a node beside its target and its arguments."""


def declarations(target: Any) -> dict[str, Any]:
    """Return argument -> annotation of a class or function, ranges included."""
    name = f"{target.__module__}.{target.__qualname__}"
    known = hints(target.__init__ if inspect.isclass(target) else target)
    taken = _parameters(target)[0]
    all_known = {**known, **borrowed(name)}
    return {key: hint for key, hint in all_known.items() if key in taken}


def fits(value: Any, hint: Any) -> bool:
    """Return whether ``value``, plain YAML data or a node with a target, fits the annotation ``hint``.

    A whole number without a declared range has 64 bits, as those of torch.
    """
    if isinstance(value, int) and not -INT64 <= value < INT64:
        return False
    if isinstance(value, list) and not all(fits(item, Any) for item in value):
        return False
    return in_range(value, hint, _fits_other)


def _fits_other(value: Any, hint: Any) -> bool:
    """Return whether a value fits an annotation of objects: they cannot be written in YAML but as a node."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if hint is Any or isinstance(hint, TypeVar | ForwardRef | str):
        return True
    if isinstance(value, Mapping):
        return _makes(value, hint)
    if isinstance(value, str) and hint in (Path, os.PathLike):
        return True
    return inspect.isclass(hint) and isinstance(value, hint) and hint is not object


def _makes(node: Mapping[str, Any], hint: Any) -> bool:
    """Return whether a node makes an object of a class; what cannot be told is let pass."""
    if not inspect.isclass(hint) or hint in (dict, object):
        return True
    if "_target_" not in node:
        return False
    target = resolve(node["_target_"], "it")
    return not node.get("_partial_") and (not inspect.isclass(target) or issubclass(target, hint))
