"""The page of all error messages, read from the source, with what to do about each."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from metagen.errors import installing

SOURCE = Path(__file__).parents[2] / "src"
REMEDIES = Path(__file__).with_name("remedies.yaml")
SAYS = re.compile(
    r"\b(use|set|name|give|expected|lower|raise|leave|train|make|move|write|choose|run|quote|check|add|call|"
    r"pip install|remove|connect|draw|wait|finish|start|compare|must be|must hold|needs|say|free|takes|see|"
    r"did you mean|known|may lie|too)\b"
)
"""Words by which a message itself says what was expected or what to do."""


class Message(NamedTuple):
    """One message: the module and function that print it, and its text with ``…`` for what varies."""

    module: str
    function: str
    text: str


def messages(source: Path = SOURCE) -> list[Message]:
    """Return every message of an error that the project raises or prints, in the order of the source."""
    found: dict[Message, None] = {}
    for path in sorted(source.rglob("*.py")):
        module = ".".join(path.relative_to(source).with_suffix("").parts)
        found |= dict.fromkeys(_messages(ast.parse(path.read_text()), module))
    return list(found)


def _messages(tree: ast.Module, module: str) -> Iterator[Message]:
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    constants = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign) and _is_text(n)}
    tree = _Filled(constants).visit(tree)
    errors = {"MetagenError", "UsageError", "Line", "_fail"} | {
        n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name.endswith("Error")
    }
    for scope, node in _scoped(tree, module.rpartition(".")[2]):
        if isinstance(node, ast.Call) and _is_error(node.func, errors) and node.args:
            known = {} if module.endswith(".error_lines") else functions
            yield from (Message(module, scope, text) for text in _texts(node.args[0], known))
        elif isinstance(node, ast.Return) and module.endswith(".error_lines") and node.value is not None:
            # What explain makes of the errors of Hydra and the system are strings of their own.
            yield from (Message(module, scope, text) for text in _texts(node.value, {}))


def _is_text(node: ast.Assign) -> bool:
    text = isinstance(node.value, ast.JoinedStr | ast.Constant) and re.search(
        "[a-z] ", ast.unparse(node.value)
    )
    return isinstance(node.targets[0], ast.Name) and bool(text)


class _Filled(ast.NodeTransformer):
    """Puts the module's constant texts where they are filled in."""

    def __init__(self, constants: dict[str, ast.expr]) -> None:
        self.constants = constants

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        return self.constants.get(name, node)


def _scoped(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield every node with the function or class that it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}.{child.name}" if isinstance(node, ast.ClassDef) else child.name
            yield from _scoped(child, inner)
        else:
            yield scope, child
            yield from _scoped(child, scope)


def _is_error(func: ast.expr, errors: set[str]) -> bool:
    if isinstance(func, ast.Name):
        return func.id in errors
    if not isinstance(func, ast.Attribute):
        return False
    parser = func.attr == "error" and isinstance(func.value, ast.Name) and func.value.id == "parser"
    return parser or (func.attr == "__init__" and isinstance(func.value, ast.Call))


def _texts(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """Yield the texts that an expression may be, for calls those that the module's function returns."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        for inner in ast.walk(functions[node.func.id]):
            if isinstance(inner, ast.Return) and inner.value is not None:
                yield from _texts(inner.value, {})
    elif isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
        text = _text(node)
        if re.search(r"[a-z]{2}", text):
            yield text


def _text(node: ast.AST) -> str:
    """Return a string with the names of what is filled in: f"no folder {path}" is "no folder ‹path›"."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.FormattedValue):
        inner = node.value
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "nearest":
            return "; did you mean '…'?"
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "installing":
            return installing(_text(inner.args[0]) or f"‹{_name(inner.args[0])}›")
        return f"‹{_name(inner)}›"
    return ""


def _name(node: ast.AST) -> str:
    """Return a short name of an expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _name(node.value)
        return inner if node.attr in ("__name__", "name", "stem") else node.attr
    if isinstance(node, ast.Call) and node.args:
        return _name(node.args[-1])
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.BoolOp):
        return " / ".join(_text(side) or _name(side) for side in node.values)
    if isinstance(node, ast.IfExp):
        return " / ".join(_text(side) or _name(side) for side in (node.body, node.orelse))
    return "…"


def remedies() -> dict[str, dict[str, Any]]:
    """Return, by module, ``about`` (when its errors come) and by a piece of a message what to do."""
    return yaml.safe_load(REMEDIES.read_text())


def page() -> str:
    """Return the page: a section for each module, a list of its messages."""
    parts, known = ["# Error messages\n"], remedies()
    parts.append(
        "Every message that metagen prints, read from the source when this guide was built. ‹…› stands for what "
        "differs. Where a message says itself what was expected and what to do, it stands alone; more is said "
        "where it needs more. `METAGEN_DEBUG=1` shows the stack trace of an error, too.\n"
    )
    found = messages()
    for module in dict.fromkeys(m.module for m in found):
        entry = known.get(module, {})
        parts += [f"## {module}\n"]
        if "about" in entry:
            parts += [entry["about"].strip() + "\n"]
        for message in (m for m in found if m.module == module):
            parts += [f"- `{message.text}`{_remedy(message, entry)}"]
        parts += [""]
    return "\n".join(parts)


def _remedy(message: Message, entry: dict[str, Any]) -> str:
    said = [text for piece, text in entry.items() if piece != "about" and piece in message.text]
    return "".join(f"\n\n  {text.strip()}" for text in said)


def unanswered() -> list[Message]:
    """Return the messages that do not say what to do, and for which nothing is said here."""
    known = remedies()
    return [m for m in messages() if not SAYS.search(m.text) and not _remedy(m, known.get(m.module, {}))]


def stale() -> list[str]:
    """Return the remedies for messages that are no longer in the source."""
    texts: dict[str, str] = {}
    for message in messages():
        texts[message.module] = texts.get(message.module, "") + "\n" + message.text
    return [
        f"{module}: {piece}"
        for module, entry in remedies().items()
        for piece in entry
        if piece not in texts.get(module, "") and not (piece == "about" and module in texts)
    ]
