"""Check a composed configuration against the constructors that it names, before anything is built.

The signature of a ``_target_`` is the schema of its node: keys are its arguments, values must fit
its annotations. So a new learner or model brings its schema with it.
"""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from metagen.config.keys import NODES, REQUIRED, VALUES
from metagen.config.trusted import resolve
from metagen.errors import MetagenError, nearest


def check(config: Mapping[str, Any]) -> None:
    """Check every node of a resolved configuration.

    Raises:
        MetagenError: an unknown key (with the nearest right one), a missing or mistyped value.
    """
    known = [*VALUES, *NODES]
    for key, value in config.items():
        if key in ("experiment", "size"):
            raise MetagenError(
                f"the YAML file of {key} needs '# @package _global_' as its first line, and keys below it"
            )
        if key not in known:
            raise MetagenError(f"no key '{key}'{nearest(key, known)} (known: {', '.join(known)})")
        if key in VALUES and not fits(value, VALUES[key]):
            close = nearest(str(value), words_of(VALUES[key]))
            raise MetagenError(f"{key}={value}: expected {describe(VALUES[key])}{close}")
        if key in REQUIRED and not (isinstance(value, Mapping) and "_target_" in value):
            raise MetagenError(
                f"{key}: expected a node with a _target_, the class of the {key}, but got {value}"
            )
        _check_node(value, key)
    if not config.get("metrics"):
        raise MetagenError("metric: expected one at least, such as metric=[recognised,coverage]")


def _check_node(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, path)
        for key, value in node.items():
            _check_node(value, f"{path}.{key}")
    if isinstance(node, list):
        for index, value in enumerate(node):
            _check_node(value, f"{path}[{index}]")


def _check_call(node: Mapping[str, Any], path: str) -> None:
    """Compare one node with the signature of its target."""
    target = resolve(node["_target_"], path)
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in parameters and not open_ended:
            raise MetagenError(
                f"{path}.{key} is no argument of {node['_target_']}{nearest(key, parameters)} "
                f"(it takes {', '.join(parameters)})"
            )
        if not fits(value, hints.get(key, Any)):
            close = nearest(str(value), words_of(hints[key]))
            raise MetagenError(f"{path}.{key}={value}: expected {describe(hints[key])}{close}")
    if not node.get("_partial_", False):
        required = [
            n for n, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        for name in required:
            if name not in node:
                raise MetagenError(f"{path}.{name} is missing: {node['_target_']} needs it")


def _hints(target: Any) -> dict[str, Any]:
    """Return the annotations of a constructor or function; those that cannot be read are left out."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Return whether ``value``, plain YAML data or a node with a target, fits the annotation ``hint``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, Mapping):
        return hint not in (int, float, bool, str) and origin is not Literal
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin in (list, tuple, Sequence) and args:
        inner = args[0]
        return isinstance(value, list | tuple) and all(fits(item, inner) for item in value)
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    # A tensor, a module or an object of ours cannot be written in YAML but as a node.
    ours = getattr(hint, "__module__", "").startswith("metagen.")
    return not (inspect.isclass(hint) and (ours or issubclass(hint, torch.Tensor | torch.nn.Module)))


def describe(hint: Any) -> str:
    """Return an annotation in words for an error message."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (list, tuple, Sequence):
        return "a list of " + describe(args[0]) if args else "a list"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        type(None): "null",
    }
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def words_of(hint: Any) -> list[str]:
    """Return the words that an annotation lists, at any depth of unions."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return [arg for arg in args if isinstance(arg, str)]
    return [word for arg in args for word in words_of(arg)]
