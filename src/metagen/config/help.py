"""The help of ``metagen train``: every key of a configuration with its value and what it means.

A key is documented where it is defined: by a comment behind it in its YAML file, or under ``Args`` of the
class that takes it, which is read from the source, since to import it would take seconds.
"""

import ast
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metagen.config.declared import declared
from metagen.config.keys import VALUES
from metagen.config.tree import conf_dir
from metagen.ranges import range_of, words_of

MANY_OF_A_GROUP = {"metrics": "metric", "callbacks": "callbacks", "logger": "logger"}
"""Nodes that hold one node for each choice of a group."""
WIDTH, COLUMN = 110, 44
"""Characters of a line, and where the explanations begin."""


class Key(NamedTuple):
    """A key with its value and its explanation, which may be empty."""

    path: str
    value: Any
    text: str


def overview(overrides: Sequence[str]) -> str:
    """Return the help text for what ``overrides`` compose: groups with their choices, then all keys.

    Raises:
        HydraException: the overrides cannot be composed.
    """
    groups = [path for path in sorted(conf_dir().iterdir()) if path.is_dir() and path.name != "hydra"]
    lines = ["metagen train [group=choice] [key=value] [-m for a sweep, its values separated by commas]", ""]
    lines += ["Groups and their choices (metagen train GROUP=CHOICE --help shows the keys of a choice):", ""]
    for group in groups:
        names = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
        if names:  # what a family of experiments has in common is no choice
            lines += _wrapped(f"  {group.name}: {names}", 4)
    lines += ["", "Keys, their values, and what they mean:"]
    for key in keys(overrides):
        if "." not in key.path and key.value is None and not key.text:
            lines += ["", key.path]
        else:
            lines += _line(key)
    return "\n".join(lines)


def keys(overrides: Sequence[str]) -> Iterator[Key]:
    """Yield every key of what ``overrides`` compose; a node is a key without value and explanation."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
    choices = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    globals_ = comments(conf_dir() / "config.yaml")
    for name, node in sorted(plain.items(), key=lambda item: isinstance(item[1], dict)):
        if name == "hydra":
            continue
        if isinstance(node, dict):
            yield Key(str(name), None, "")
            said = _said_of(str(name), choices)
            yield from _keys(node, str(name), said)
        else:
            yield Key(str(name), node, _with_range(globals_.get(str(name), ""), VALUES.get(str(name))))


def _keys(node: Mapping[Any, Any], path: str, said: Mapping[str, str]) -> Iterator[Key]:
    """Yield the keys of a node; ``said`` are the comments of the YAML, by path below the group."""
    target = node.get("_target_")
    documented = arguments(target) if isinstance(target, str) else {}
    hints = declared(target) if isinstance(target, str) else {}
    for key, value in node.items():
        if str(key).startswith("_"):
            continue
        here = f"{path}.{key}"
        text = said.get(here.partition(".")[2]) or documented.get(str(key), "")
        if isinstance(value, Mapping) and value:
            yield Key(here, value.get("_target_", ""), text)
            yield from _keys(value, here, said)
        else:
            yield Key(here, value, _with_range(text, hints.get(str(key))))


def _with_range(text: str, hint: Any) -> str:
    """Return an explanation with the range of the values behind it, unless it names them."""
    within = range_of(hint)
    if not within or all(word in text for word in words_of(hint) or [within]):
        return text
    return f"{text} ({within})".strip()


def _said_of(node: str, choices: Mapping[str, Any]) -> dict[str, str]:
    """Return the comments of the files that a node is composed of."""
    if node in MANY_OF_A_GROUP:
        files = [(f"{path.stem}.", path) for path in (conf_dir() / MANY_OF_A_GROUP[node]).glob("*.yaml")]
        return {prefix + key: text for prefix, path in files for key, text in comments(path).items()}
    own = [node] if node in choices else [name for name in choices if name.partition("@")[2] == node]
    group = next(iter(own), node).partition("@")[0]
    choice = choices.get(group if group == node else f"{group}@{node}")
    return _inherited(group, choice) if isinstance(choice, str) else {}


def _inherited(group: str, choice: str) -> dict[str, str]:
    path = conf_dir() / group / f"{choice}.yaml"
    if not path.is_file():
        return {}
    defaults = OmegaConf.to_container(OmegaConf.load(path))
    parents = defaults.get("defaults", []) if isinstance(defaults, dict) else []
    said: dict[str, str] = {}
    for parent in parents:
        if isinstance(parent, str) and parent != "_self_":
            said |= _inherited(group, parent)
        if isinstance(parent, dict):
            for key, name in parent.items():
                place = str(key).removeprefix("override ")
                inner, _, package = place.lstrip("/").partition("@")
                if not package and not place.startswith("/"):
                    # A group below this one, whose node has its name.
                    inner, package = f"{group}/{place}", place
                found = _inherited(inner, str(name)) if package else {}
                said |= {f"{package}.{key}": text for key, text in found.items()}
    return said | comments(path)


@cache
def comments(path: Path) -> dict[str, str]:
    """Return dotted key -> the comment behind it, for the keys of a YAML file that have one."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)(?:- )?([\w.]+):(?: (?:[^#]|#(?<! #))*)?(?:\s#\s*(.*))?$", line)
        if match is None:
            continue
        depth = len(match[1])
        parents = [(at, key) for at, key in parents if at < depth] + [(depth, match[2])]
        if match[3]:
            found[".".join(key for _, key in parents)] = match[3].strip()
    return found


@cache
def arguments(target: str) -> dict[str, str]:
    """Return argument -> explanation, from the ``Args`` of a class of metagen and of its bases."""
    module, _, name = target.rpartition(".")
    if not module.startswith("metagen."):
        return {}
    path = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            inherited: dict[str, str] = {}
            for base in getattr(node, "bases", []):
                if isinstance(base, ast.Name):
                    inherited |= arguments(imported.get(base.id, f"{module}.{base.id}"))
            own = _args(ast.get_docstring(node) or "")
            # "see Learner" is said better there.
            return own | {
                name: text for name, text in inherited.items() if own.get(name, "see ")[:4] == "see "
            }
    return {}


def _args(docstring: str) -> dict[str, str]:
    match = re.search(r"^Args:\n((?: .*\n?|\n)+)", docstring, re.M)
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(match[1]) if match else ""):
        names, _, text = entry.partition(":")
        for name in names.split(","):
            found[name.strip()] = _plain(text)
    return found


def _plain(text: str) -> str:
    """Return a docstring's text without its marks."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())


def _line(key: Key) -> list[str]:
    head = f"  {key.path}={json.dumps(key.value) if not isinstance(key.value, str) else key.value}"
    if not key.text:
        return [head]
    if len(head) < COLUMN:
        return _wrapped(f"{head.ljust(COLUMN)}{key.text}", COLUMN)
    return [head, *_wrapped(" " * COLUMN + key.text, COLUMN)]


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, drop_whitespace=True, break_on_hyphens=False
    )
