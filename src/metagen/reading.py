"""Files that somebody else may have written, read so that a bad one can at most fail."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError

LIMIT = 2**26
"""Bytes of a record or a picture."""
YAML_LIMIT = 2**20
"""Bytes of a YAML file."""
NODES = 20_000
"""Keys and values of a YAML file, each alias counted as often as it is written out."""


class NoYamlError(MetagenError):
    """A file that is no YAML."""


@contextmanager
def opened(path: str | os.PathLike[str], limit: int | None = None) -> Iterator[BufferedReader]:
    """Yield an open file; a pipe or a device, whose end may never come, is refused before it is read.

    Args:
        path: a symbolic link is followed.
        limit: bytes that it may have; None for any number.

    Raises:
        OSError: it does not exist or cannot be opened.
        MetagenError: it is no regular file, or too large.
    """
    # A pipe that nobody writes to would block the plain call.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise MetagenError(f"{path} is no regular file: name one")
        if limit is not None and found.st_size > limit:
            raise MetagenError(f"{path} has {found.st_size:,} bytes, more than {limit:,}: name another file")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_bytes(path: str | os.PathLike[str], limit: int = LIMIT) -> bytes:
    """Return what a file holds; see :func:`opened`."""
    with opened(path, limit) as file:
        return file.read(limit + 1)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return what a JSON file says.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
        OSError, MetagenError: see :func:`opened`.
    """
    try:
        return json.loads(read_bytes(path))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Return what a YAML file says as plain values, as OmegaConf reads them; interpolations stay text.

    Raises:
        NoYamlError: it is no YAML.
        MetagenError: it is too large, or grows when its aliases are written out.
        OSError: see :func:`opened`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    text = checked_yaml(path)
    try:
        return OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else None
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def checked_yaml(path: str | os.PathLike[str]) -> str:
    """Return the text of a YAML file of which no part stands for very much more.

    Raises:
        NoYamlError: it is no YAML.
        MetagenError: it is too large, or grows when its aliases are written out.
        OSError: see :func:`opened`.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = read_bytes(path, YAML_LIMIT).decode("utf-8")
        root = yaml.compose(text, loader)
        nodes = 0 if root is None else _nodes(root, {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if nodes > NODES:
        raise MetagenError(f"{path} stands for more than {NODES:,} values: its aliases written out")
    return text


def _nodes(node: Any, known: dict[int, int]) -> int:
    """Return how many nodes there are when aliases are written out; each is looked at once.

    Raises:
        ValueError: a node that holds itself.
    """
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("an alias that holds itself")
        return known[id(node)]
    known[id(node)] = 0
    parts = node.value if isinstance(node.value, list) else []
    flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
    known[id(node)] = 1 + sum(_nodes(one, known) for one in flat)
    return known[id(node)]


def _unreadable(path: str | os.PathLike[str], error: Exception) -> NoYamlError:
    mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f", line {mark.line + 1}" if mark else ""
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else what or str(error)
    return NoYamlError(f"{path}{place}: no YAML ({' '.join(str(reason).split())[:120]}): name another file")


def links_out(folder: Path) -> Path | None:
    """Return a symbolic link in ``folder``, at any depth, that leads out of it; None where there is none.

    Who writes into such a folder would write into somebody's file elsewhere.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not _target(path).is_relative_to(home):
                return path
    return None


def _target(link: Path) -> Path:
    """Return where a link leads; of one that leads to itself, the link (``Path.resolve`` would fail)."""
    return Path(os.path.realpath(link))


def check_writable(folder: Path) -> None:
    """Refuse a folder that is about to be written into and holds links to places outside of it.

    Raises:
        MetagenError: it does.
    """
    if (link := links_out(folder)) is not None:
        raise MetagenError(
            f"{link} is a link to {_target(link)}, out of {folder}, where nothing may be written: "
            "put what it links to in its place"
        )
