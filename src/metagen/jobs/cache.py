"""The cache of banks and judges: listed, checked and cleared."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from metagen.data import bank_file
from metagen.data import cache as caches
from metagen.errors import MetagenError, nearest
from metagen.files import clear_leftovers


class Entry(NamedTuple):
    """A file in the cache: what it is of, and in words what it holds."""

    path: Path
    name: str
    holds: str


def entries(cache: str | None, names: Sequence[str] = ()) -> list[Entry]:
    """Return what lies in the cache folder, of these names only if there are any.

    Raises:
        MetagenError: nothing has one of the names, or ``cache`` names no folder.
    """
    folder = caches.folder(cache)
    if cache is not None and not folder.is_dir():
        raise MetagenError(f"--cache {cache}: there is no folder of this name")
    clear_leftovers(folder / "banks")
    found = [_bank(path) for path in sorted(folder.glob("banks/*.bank"))]
    found += [Entry(path, "judge", "weights") for path in sorted(folder.glob("judge-*.pt"))]
    found += [
        Entry(path, path.stem.rpartition("-")[0], "of an older version")
        for path in sorted(folder.glob("*.npz"))
    ]
    known = {entry.name for entry in found} | {entry.path.name for entry in found}
    for name in names:
        if name not in known:
            raise MetagenError(
                f"{folder} holds nothing named {name}{nearest(name, known)}: see metagen cache"
            )
    return [entry for entry in found if not names or {entry.name, entry.path.name} & set(names)]


def listing(cache: str | None, names: Sequence[str] = (), check: bool = False) -> str:
    """Return a table of what lies in the cache; with ``check`` whether it is whole."""
    found = entries(cache, names)
    rows = [("name", "MB", "written", "holds", "file")]
    for path, name, holds in found:
        stat = path.stat()
        written = datetime.fromtimestamp(stat.st_mtime).strftime("%Y-%m-%d %H:%M")
        holds += f" ({_checked(path)})" if check and path.suffix == ".bank" else ""
        rows.append((name, f"{stat.st_size / 1e6:.1f}", written, holds, path.name))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows
    ]
    total = sum(path.stat().st_size for path, _, _ in found) / 1e6
    return "\n".join(
        [*(lines if found else []), f"{len(found)} files, {total:.1f} MB in {caches.folder(cache)}"]
    )


def clear(cache: str | None, names: Sequence[str] = ()) -> str:
    """Remove what lies in the cache and say how much it was; a run that uses a file keeps it till its end."""
    found = entries(cache, names)
    size = 0
    for entry in found:
        size += entry.path.stat().st_size
        try:
            entry.path.unlink()
        except OSError as error:
            raise MetagenError(f"cannot remove {entry.path}: {error.strerror}") from error
    banks = caches.folder(cache) / "banks"
    for pointer in banks.glob("*.json"):
        if not (banks / caches.pointed(pointer).get("bank", "none")).exists():
            pointer.unlink()
    return f"{len(found)} files, {size / 1e6:.1f} MB removed from {caches.folder(cache)}"


def _bank(path: Path) -> Entry:
    try:
        content = bank_file.describe(path)
    except (OSError, ValueError, KeyError):
        return Entry(path, path.stem.rpartition("-")[0], "damaged")
    m, c, h, w = content["shape"]
    return Entry(path, content["name"], f"{m:,} images {c} x {h} x {w} of {len(content['names'])} classes")


def _checked(path: Path) -> str:
    try:
        bank_file.read(path, check=True)
    except Exception as error:  # whatever is wrong with it is to be told
        return f"damaged: {error}"
    return "whole"
