"""Interpolations ``${...}``: which of them a configuration that somebody sent may ask for."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from metagen.config.allowed import allowed
from metagen.console import printable
from metagen.errors import MetagenError
from metagen.variables import ALLOW

RESOLVERS = frozenset({"hydra", "now", "oc.select", "oc.dict.keys", "oc.dict.values", "python_version"})
"""What reads the configuration itself or the clock."""
COMPUTED = "a computed name"


def check_interpolations(node: Any, source: object, written: Sequence[str] = ()) -> None:
    """Refuse a configuration that asks for more than its own values and ``METAGEN_...`` variables.

    ``oc.create`` makes a node of a text, after that was checked; ``oc.env`` reads the user's secrets.

    Args:
        node: plain and unresolved: nested mappings and lists.
        source: where it is from, for the error.
        written: words of this user's own command line; what they ask for may be asked for.

    Raises:
        MetagenError: it does.
    """
    free = {*allowed(), *(name for word in written for name in asked(word))}
    for path, text in _texts(node):
        for name in asked(text):
            if name not in free and not _harmless(name):
                raise MetagenError(_refusal(source, path, name))


def asked(text: str) -> Iterator[str]:
    """Yield the resolvers that a text asks for: ``now``, ``oc.env:HOME``; of the others the name alone.

    Escaped ones count, too: what is resolved a second time has lost its escapes.
    """
    for match in re.finditer(r"\$\{", text):
        rest = text[match.end() :]
        head = re.match(r"[^:}]*", rest)
        assert head is not None
        if "${" in head[0]:
            yield COMPUTED
        elif rest[head.end() : head.end() + 1] == ":":
            name = head[0].strip()
            variable = re.match(r"\s*(\w*)\s*(?=[,}])", rest[head.end() + 1 :])
            yield f"oc.env:{variable[1] if variable else ''}" if name == "oc.env" else name


def literal(node: Any) -> Any:
    """Return plain values in which every text stands for itself, however often OmegaConf resolves it once."""
    if isinstance(node, Mapping):
        return {key: literal(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [literal(value) for value in node]
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", node) if isinstance(node, str) else node


def _harmless(name: str) -> bool:
    return name in RESOLVERS or name.startswith("oc.env:METAGEN_")


def _texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and text of every value, and of every key."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, f"{path}.{key}".lstrip("."))
            yield path, str(key)
    elif isinstance(node, Iterable) and not isinstance(node, bytes):
        for index, value in enumerate(node):
            yield from _texts(value, f"{path}[{index}]")


def _refusal(source: object, path: str, name: str) -> str:
    place = printable(f"{source}: {path}" if path else str(source))
    if name == COMPUTED:
        return f"{place} computes the name of what it asks for, which may be anything: write the name"
    return (
        f"{place} asks for ${{{printable(name)}}}: what was not written on this command line may read "
        f"its own values and METAGEN_ variables only; give the value, or if nobody sent you this, allow it "
        f"by {ALLOW}={printable(name)} in the environment"
    )
