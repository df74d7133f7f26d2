"""Banks on disk: each once, named by its content, and rebuilt whenever anything is wrong with it."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metagen.data import bank_file
from metagen.data.bank import Bank
from metagen.data.bank_file import Stream, UnwritableError
from metagen.errors import MetagenError
from metagen.files import expanded, scratch, write_json
from metagen.locked import locked
from metagen.reading import read_json

_LOG = logging.getLogger(__name__)
_FORMAT = 2


def folder(cache: str | None) -> Path:
    """Return the cache folder: ``cache``, else the environment's METAGEN_CACHE, else ~/.cache/metagen."""
    return expanded(cache or os.environ.get("METAGEN_CACHE") or "~/.cache/metagen")


def fingerprint(params: Mapping[str, Any], sources: Sequence[Path]) -> str:
    """Return a checksum of the parameters and of each source file's name, size and time."""
    stats = [(path.name, *_size_and_time(path)) for path in sources]
    return hashlib.sha256(json.dumps([_FORMAT, dict(params), stats]).encode()).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return a file's size and the time of its last change; -1 for a link to nothing or to itself."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def cached(folder: Path, name: str, key: str | None, place: str, stream: Callable[[], Stream]) -> Bank:
    """Return the bank that is stored under ``key``, else read and store it; its images are mapped.

    ``folder/banks`` holds each bank once, in ``NAME-CHECKSUM.bank``, and for each key a small file that
    names it: equal data that are read from several places have one bank. What is truncated, corrupt or
    stale is rebuilt, and a cache that cannot be written is done without; both are logged as warnings.

    Args:
        folder: the cache.
        name: of the data set.
        key: fingerprint of the sources; None keeps the file only as long as the bank is used.
        place: where the data come from. A bank that was read from there before and is not named by
            anything else is removed.
        stream: reads the images, in the order of their classes.
    """
    banks = folder / "banks"
    if key is None:
        return _made(banks, name, None, place, stream)
    pointer = banks / f"{key}.json"
    if (bank := _known(pointer)) is not None:
        return bank
    waited: list[None] = []

    def wait() -> None:
        waited.append(None)
        _LOG.warning("waits for the images of %s, which another process reads", name)

    with locked(pointer, wait):
        bank = _known(pointer) if waited else None
        return _made(banks, name, key, place, stream) if bank is None else bank


def _known(pointer: Path) -> Bank | None:
    """Return the bank that a pointer names, if there is one and nothing is wrong with it."""
    try:
        if pointer.exists():
            return bank_file.read(pointer.parent / Path(read_json(pointer)["bank"]).name)
    except Exception as error:  # whatever is wrong with it, the sources are at hand
        _LOG.warning("cache %s is not used and will be rebuilt: %s", pointer, error)
    return None


def _made(banks: Path, name: str, key: str | None, place: str, stream: Callable[[], Stream]) -> Bank:
    """Read a bank and store it, where that is possible."""
    try:
        return _stored(banks, name, key, place, stream())
    except UnwritableError as error:
        _LOG.warning("cache %s could not be written, the run goes on without: %s", banks, error)
    return bank_file.in_memory(name, stream())


def _stored(banks: Path, name: str, key: str | None, place: str, stream: Stream) -> Bank:
    """Write a bank in a folder of its own, move it to the name of its content, and map it."""
    try:
        banks.mkdir(parents=True, exist_ok=True)
        with scratch(banks, name) as partial:
            path = partial / "bank"
            with open(path, "wb", buffering=0) as file:  # a buffer would fail once more when it is closed
                digest = bank_file.write(file, name, stream)
            if key is None:
                return bank_file.read(path)  # the mapping keeps what the name is taken from
            target = banks / f"{name}-{digest[:16]}.bank"
            os.replace(path, target)
    except OSError as error:
        raise UnwritableError(error.errno, error.strerror) from error
    _point(banks, key, place, target.name)
    return bank_file.read(target)


def _point(banks: Path, key: str, place: str, bank: str) -> None:
    """Name a bank by its key; remove what was read from the same place before."""
    try:
        write_json(banks / f"{key}.json", {"bank": bank, "place": place})
    except MetagenError as error:
        _LOG.warning("cache %s could not be written: %s", banks, error)
        return
    pointers = {path: pointed(path) for path in banks.glob("*.json") if path.stem != key}
    stale = {path: entry["bank"] for path, entry in pointers.items() if entry.get("place") == place}
    for path in stale:
        path.unlink(missing_ok=True)
    named = {entry.get("bank") for path, entry in pointers.items() if path not in stale} | {bank}
    for old in set(stale.values()) - named:
        (banks / Path(old).name).unlink(missing_ok=True)


def pointed(path: Path) -> dict[str, str]:
    """Return bank and place of a file that names a bank; nothing where it is damaged."""
    try:
        entry = read_json(path)
        return {"bank": str(entry["bank"]), "place": str(entry["place"])}
    except (OSError, ValueError, KeyError, TypeError, MetagenError):
        return {}
