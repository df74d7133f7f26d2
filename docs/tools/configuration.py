"""The configuration reference: every choice of every group, from the YAML files and what they name."""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object

from metagen.config import borrowed, keys, schema
from metagen.config.tree import conf_dir
from metagen.ranges import describe

HEAD = """\
# Configuration

Made from the files in `conf/` and the constructors that their `_target_` names. A key is overridden by
`key=value`, a group by `group=choice`. Defaults in brackets are the constructor's own: such a key is
added by `+key=value`. Every node is checked against its constructor's types, and every value against the
range beside it, before anything is loaded; the ranges of torch's and Lightning's arguments are in
`metagen.config.borrowed`. A number is finite, and true and false are no numbers.
"""
AS_THEY_ARE = ("experiment", "family", "size")
"""Groups whose files set keys of other groups: they are shown whole."""


def page(conf: Path | None = None) -> str:
    """Return the page."""
    conf = conf or conf_dir()
    parts = [HEAD, "## Global keys", "", _keys_of(conf / "config.yaml"), ""]
    for group in sorted({path.parent.relative_to(conf) for path in conf.rglob("*.yaml")} - {Path(".")}):
        parts += [f"## {group}", ""]
        for path in sorted((conf / group).glob("*.yaml")):
            parts += [_choice(path, str(group))]
    return "\n".join(parts)


def _choice(path: Path, group: str) -> str:
    """Return the section of one file."""
    config, text = _loaded(path), path.read_text()
    parts = [f"### {group}={path.stem}", ""]
    if head := _head(text):
        parts += [head, ""]
    target = config.get("_target_")
    if target:
        parts += [f"`{target}`: {_first_sentence(_find(target))}", ""]
    if group.split("/")[0] in AS_THEY_ARE:
        parts += ["```yaml", *(line for line in text.splitlines() if not line.startswith("#")), "```"]
    elif rows := list(_rows(config, _all_comments(path), _signature(target), group.rpartition("/")[2])):
        parts += ["| key | default | type | |", "|:--|:--|:--|:--|", *rows]
    return "\n".join([*parts, ""])


def _loaded(path: Path) -> dict[str, Any]:
    """Return a file's keys over those of the files of its own group that its defaults list names."""
    config = yaml.load(path.read_text(), yaml.BaseLoader) or {}
    config.pop("defaults", None)
    merged: dict[str, Any] = {}
    for base in _bases(path):
        merged |= _loaded(base)
    return merged | config


def _keys_of(path: Path) -> str:
    text = path.read_text()
    config = yaml.load(text, yaml.BaseLoader)
    comments = _comments(text)
    rows = ["| key | default | type | |", "|:--|:--|:--|:--|"]
    for key, hint in keys.VALUES.items():
        about = comments.get(key, "")
        rows.append(f"| `{key}` | {_value(config.get(key))} | {_words(hint)} | {_cell(about)} |")
    return "\n".join(rows)


def _rows(
    config: Mapping[str, Any], comments: Mapping[str, str], signature: Mapping[str, Any], prefix: str
) -> Iterator[str]:
    """Yield a line for every key, nested ones by their whole path."""
    for key in [*config, *(name for name in signature if name not in config)]:
        if key in ("_target_", "_partial_", "_convert_"):
            continue
        value, path = config.get(key), f"{prefix}.{key}"
        kind, default, about = signature.get(key, ("", None, ""))
        about = comments.get(key) or about
        if key not in config:
            if default is inspect.Parameter.empty:
                continue
            yield f"| `{path}` | ({_value(default)}) | {_cell(kind)} | {_cell(about)} |"
        elif isinstance(value, dict) and value:
            target = value.get("_target_")
            shown = f"`{target}`" if target else ""
            yield f"| `{path}` | {shown} | {_cell(kind)} | {_cell(about)} |"
            yield from _rows(value, comments, _signature(target), path)
        else:
            yield f"| `{path}` | {_value(value)} | {_cell(kind)} | {_cell(about)} |"


def _value(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, list):
        return f"`[{', '.join(v if isinstance(v, str) else str(v.get('_target_', v)) for v in value)}]`"
    return f"`{value}`" if str(value) else "`''`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _head(text: str) -> str:
    """Return the comment above the first key, as prose with its commands in a block."""
    out: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        line = line[1:].removeprefix(" ")
        if line.startswith("@package"):
            continue
        code, inside = line.startswith("  "), bool(out) and out[-1].startswith("    ")
        if code and inside and line.startswith("    "):
            out[-1] += " " + line.strip()  # a command goes on
        elif code:
            out += [*([""] if not inside else []), "    " + line.strip()]
        else:
            out += [*([""] if inside else []), line]
    return "\n".join(out)


def _comments(text: str) -> dict[str, str]:
    """Return the comment behind each key."""
    found = re.findall(r"^\s*(\w+):[^#\n]*?\s#\s*(.+)$", text, re.M)
    return dict(found)


def _all_comments(path: Path) -> dict[str, str]:
    """Return the comments of a file over those of the files that it starts from."""
    found: dict[str, str] = {}
    for base in _bases(path):
        found |= _all_comments(base)
    return found | _comments(path.read_text())


def _bases(path: Path) -> list[Path]:
    """Return the files of its own group that a file's defaults list names."""
    config = yaml.load(path.read_text(), yaml.BaseLoader) or {}
    named = (
        path.with_name(f"{entry}.yaml") for entry in config.get("defaults", []) if isinstance(entry, str)
    )
    return [base for base in named if base != path and base.is_file()]


def _find(target: str) -> Any:
    return get_object(target)


def _words(hint: Any) -> str:
    """Return a type and its range; a bound beyond everything sensible is left out."""
    text = re.sub(r" from (\S+) to 1,000,000,000\b", r" of \1 or more", describe(hint))
    return re.sub(r" above (\S+) up to 1,000,000,000\b", r" above \1", text)


def _signature(target: str | None) -> dict[str, tuple[str, Any, str]]:
    """Return by argument of a target its type in words, its default and its description."""
    if not target or target.startswith("hydra"):
        return {}
    found = _find(target)
    hints = schema.declarations(found)
    if not target.startswith("metagen."):
        names = borrowed.borrowed(target)
        return {name: (_words(hint), inspect.Parameter.empty, "") for name, hint in names.items()}
    about = _arguments(found)
    return {
        name: (_words(hints[name]) if name in hints else "", p.default, about.get(name, ""))
        for name, p in inspect.signature(found).parameters.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and not name.startswith("_")
    }


def _arguments(found: Any) -> dict[str, str]:
    """Return the ``Args:`` of a docstring, those of base classes included."""
    out: dict[str, str] = {}
    for doc in _docstrings(found):
        section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", inspect.cleandoc(doc or "") + "\n", re.M)
        if section:
            for names, text in re.findall(r"^    ([\w, ]+): ((?:.*\n(?:\s{8}.*\n|)*))", section[1], re.M):
                about = re.sub(r":\w+:`[~]?([^`]*)`", r"`\1`", " ".join(text.split())).replace("``", "`")
                for name in (name.strip() for name in names.split(",")):
                    if name not in out or not about.startswith("see "):
                        out[name] = about
    return out


def _docstrings(found: Any) -> Iterator[str | None]:
    """Yield the docstrings of a function, or of a class and its constructor after those of its bases."""
    if not inspect.isclass(found):
        yield found.__doc__
        return
    for cls in reversed(inspect.getmro(found)):
        yield cls.__dict__.get("__doc__")
        if inspect.isfunction(cls.__dict__.get("__init__")):
            yield cls.__dict__["__init__"].__doc__


def _first_sentence(found: Any) -> str:
    doc = re.split(r"\n\s*\n", inspect.getdoc(found) or "")[0]
    return re.sub(r":\w+:`[~]?([^`]*)`", r"`\1`", " ".join(doc.split())).replace("``", "`")
