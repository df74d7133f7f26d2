"""The ranges that a class declares, read from its source: to import it would take seconds."""

import ast
import typing
from functools import cache
from pathlib import Path
from typing import Any

import annotated_types

from metagen import ranges
from metagen.config.borrowed import borrowed


def declared(target: str) -> dict[str, Any]:
    """Return argument -> annotation of a class or function, those of its bases included.

    What a name in an annotation stands for is known for those of :mod:`metagen.ranges` and for assignments
    of the module; any other one stands for some object.
    """
    module, _, name = target.rpartition(".")
    found: dict[str, Any] = {}
    for node in _tree(module):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("metagen."):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return declared(f"{node.module}.{alias.name}")
        if isinstance(node, ast.ClassDef) and node.name == name:
            for base in node.bases:
                if isinstance(base, ast.Name):
                    found |= declared(f"{module}.{base.id}")
            inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
            found = _arguments(inits[0], module) if inits else found
        if isinstance(node, ast.FunctionDef) and node.name == name:
            found |= _arguments(node, module)
    return found | borrowed(target)


def _arguments(function: ast.FunctionDef, module: str) -> dict[str, Any]:
    names = _names(module)
    listed = [*function.args.args, *function.args.kwonlyargs]
    return {one.arg: _evaluated(one.annotation, names) for one in listed if one.annotation is not None}


class _Names(dict[str, Any]):
    """What is not known is some object."""

    def __missing__(self, name: str) -> Any:
        return object


@cache
def _names(module: str) -> _Names:
    """Return what the names of a module's annotations stand for."""
    found = _Names(_PLAIN | vars(typing) | vars(annotated_types) | vars(ranges))
    for node in _tree(module):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("metagen."):
            if node.module != ranges.__name__:
                inner = _names(node.module)
                found |= {one.name: inner[one.name] for one in node.names if one.name in inner}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _evaluated(node.value, found)
            if value is not object:
                found[node.targets[0].id] = value
    return found


def _evaluated(expression: ast.expr, names: _Names) -> Any:
    """Return what an annotation, of a file of ours, says; an expression of another kind is some object."""
    if not all(isinstance(node, _HARMLESS) for node in ast.walk(expression)):
        return object
    try:
        return eval(compile(ast.Expression(expression), "annotation", "eval"), {"__builtins__": {}}, names)
    except Exception:
        return object


_HARMLESS = (
    ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.BitOr, ast.Constant, ast.Tuple, ast.List,
    ast.Call, ast.Load, ast.UnaryOp, ast.USub, ast.Pow,
)  # fmt: skip
_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple, "dict": dict}


@cache
def _tree(module: str) -> list[ast.stmt]:
    """Return the statements of a module of metagen; none of another one."""
    if not module.startswith("metagen."):
        return []
    path = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
