"""Files and folders that are either whole or not there, and the refusal to write over what is there.

Everything is written under a temporary name on the same file system and moved at its end. The temporary name
tells whose it is, ``.TARGET.metagen-MACHINE-PROCESS-BIRTH-NUMBER.tmp``, so that a later start recognises and
removes what a killed process has left.
"""

import itertools
import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from metagen.errors import MetagenError
from metagen.processes import born, place

log = logging.getLogger(__name__)

STALE = 86400.0
"""Seconds after which a temporary file of another machine counts as dead."""
OF_A_RUN = (".hydra", "checkpoints", "metrics.json", "jobs.json", "multirun.yaml")
"""What tells the folder of a run or a sweep."""
_TEMPORARY = re.compile(r"\..*\.metagen-(?P<place>[\w-]+)-(?P<pid>\d+)-(?P<born>\d+)-\d+\.tmp", re.DOTALL)
_numbers = itertools.count()


@contextmanager
def atomic(path: str | os.PathLike[str], previous: str | None = None, lasting: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it there when the block succeeds.

    Folders are made. The temporary file lies beside its target because a move is atomic within one
    file system only; it is gone afterwards, whatever happens, a Ctrl-C included.

    Args:
        path: the target.
        previous: name under which the file that was at ``path`` is kept, once the new one is whole.
        lasting: whether to wait until it lies on the disk, so that a power cut leaves it.

    Raises:
        MetagenError: the file cannot be written (a full disk, a missing permission).
    """
    target = Path(path)
    temporary = _temporary(target)
    try:
        with _parents(target), _removed(temporary):
            yield temporary
            if lasting:
                _flush(temporary)
            if previous is not None and target.is_file():
                os.replace(target, target.with_name(previous))
            os.replace(temporary, target)
        if lasting:
            with suppress(OSError):  # not every file system lets a folder be flushed
                _flush(target.parent)
    except OSError as error:
        raise MetagenError(f"cannot write {target}: {error.strerror or error}") from error


@contextmanager
def new_folder(path: str | os.PathLike[str], earlier: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder and move it, or what is in it, to ``path`` when the block succeeds.

    A folder that is there is kept as it is, and so are the files in it, but for those of the same names and
    for ``earlier``. Who does not want that calls :func:`check_new_folder` first.

    Args:
        path: the target.
        earlier: files in ``path`` that an earlier call wrote, as relative paths; those of them that are not
            written again are removed.

    Raises:
        MetagenError: the folder cannot be written; nothing of it is there.
    """
    target = Path(os.path.abspath(path))
    there = target.is_dir()
    # Within a folder that is there, which may be a file system of its own.
    temporary = _temporary(target / target.name if there else target)
    try:
        with _parents(target), _removed(temporary):
            temporary.mkdir()
            yield temporary
            if there:
                _move_over(temporary, target, earlier)
            else:
                os.rename(temporary, target)
    except OSError as error:
        raise MetagenError(f"cannot write {path}: {error.strerror or error}") from error
    except MetagenError as error:
        raise MetagenError(str(error).replace(str(temporary), str(path))) from error


@contextmanager
def scratch(parent: str | os.PathLike[str] | None = None, name: str = "scratch") -> Iterator[Path]:
    """Yield a private folder in ``parent`` (default: the system's), which is gone afterwards."""
    temporary = _temporary(Path(parent or tempfile.gettempdir()) / name)
    with _removed(temporary):
        temporary.mkdir(mode=0o700)
        yield temporary


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the home of the user.

    Raises:
        MetagenError: there is none, as for a user that the system does not know.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise MetagenError(
            f"{path}: this user has no home folder; set HOME, or name a path without ~ (of the cache by "
            "METAGEN_CACHE)"
        ) from error


def is_text(name: str) -> bool:
    """Return whether a name can be written down; one of a file with bytes that are no UTF-8 cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_new_file(option: str, path: Path, force: bool) -> None:
    """Refuse to write over a file, unless the user says so.

    Raises:
        MetagenError: ``path`` is there and ``force`` is not given, or it is no regular file.
    """
    if path.is_dir() or (force and os.path.lexists(path) and not path.is_file()):
        raise MetagenError(f"{option} {path} is no regular file: name another file")
    if os.path.lexists(path) and not force:
        raise MetagenError(f"{option} {path} exists: name another file, or add --force to overwrite it")


def check_new_folder(option: str, path: Path, force: bool, own: Sequence[str] = ()) -> None:
    """Refuse to write into a folder that holds something, unless the user says so.

    Args:
        option: that names it.
        path: the folder.
        force: whether the user says so.
        own: what may be there although it tells a run, since an earlier call writes it, too.

    Raises:
        MetagenError: ``path`` is not empty and ``force`` is not given, it is the folder of a run or a sweep,
            or no folder.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise MetagenError(f"{option} {path} is no folder: name a new folder")
    clear_leftovers(path)
    if any(os.path.lexists(path / name) for name in OF_A_RUN if name not in own):
        raise MetagenError(f"{option} {path} is the folder of a run or a sweep: name a new folder")
    if any(path.iterdir()) and not force:
        raise MetagenError(
            f"{option} {path} exists and is not empty: name a new folder, or add --force to overwrite "
            "what an earlier call wrote there"
        )


def clear_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed processes have left in ``folder`` under temporary names, and return it.

    What a living process of this machine writes stays, and so does what another machine has touched within
    :data:`STALE` seconds.
    """
    removed = []
    with suppress(OSError):
        for path in list(Path(folder).iterdir()):
            if (found := _TEMPORARY.fullmatch(path.name)) and _dead(path, found):
                _remove(path)
                removed += [] if os.path.lexists(path) else [path]
    if removed:
        log.info("removed from %s, left by a killed process: %s", folder, ", ".join(p.name for p in removed))
    return removed


_clear_once = cache(clear_leftovers)
"""The first write of a process into a folder clears it."""


def _temporary(target: Path) -> Path:
    """Return a name beside ``target`` that nobody else uses."""
    _clear_once(target.parent.absolute())
    own, short = os.getpid(), os.fsencode(target.name)[:100].decode(errors="ignore")
    return target.with_name(f".{short}.metagen-{place()}-{own}-{born(own)}-{next(_numbers)}.tmp")


def _dead(path: Path, found: re.Match[str]) -> bool:
    if found["place"] != place():
        return time.time() - path.lstat().st_mtime > STALE
    return born(int(found["pid"])) != int(found["born"])


@contextmanager
def _removed(temporary: Path) -> Iterator[None]:
    """Remove a temporary file or folder at the end, whatever happens."""
    try:
        yield
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    # the reason of a failure must not be hidden by the failure to clean up after it
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders above ``target``; those that were made for nothing go again."""
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _move_over(new: Path, target: Path, earlier: Iterable[str]) -> None:
    """Move the files in ``new`` to ``target``, and remove those of ``earlier`` that are not among them."""
    files = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / file, target / file)
    for file in {Path(name) for name in earlier} - set(files):
        (target / file).unlink(missing_ok=True)
        if file.parent != Path("."):
            with suppress(OSError):  # it may hold something else
                (target / file.parent).rmdir()


def _flush(path: Path) -> None:
    """Have the system write a file or a folder to the disk now: a power cut then cannot empty it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], obj: Any, lasting: bool = True) -> None:
    """Write ``obj`` as standard JSON with sorted keys; NaN and infinities become null.

    Tensors and arrays become lists, other unknown objects (paths, versions) their ``str``.
    """
    text = json.dumps(_plain(obj), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", lasting)


def write_text(path: str | os.PathLike[str], text: str, lasting: bool = True) -> None:
    """Write a text file in UTF-8; ``lasting``: see :func:`atomic`."""
    with atomic(path, lasting=lasting) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview, previous: str | None = None) -> None:
    """Write bytes; the file before them is kept under the name ``previous``."""
    with atomic(path, previous) as temporary:
        temporary.write_bytes(data)


def write_npz(path: str | os.PathLike[str], **arrays: Any) -> None:
    """Write named arrays, compressed; equal arrays give equal bytes.

    Raises:
        MetagenError: an array could be read back only by unpickling, which nobody should do.
    """
    plain: dict[str, Any] = {name: np.asarray(a) for name, a in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise MetagenError(f"array {name!r} of {path} must hold numbers or strings, not objects")
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **plain)


def write_png(path: str | os.PathLike[str], image: Image) -> None:
    """Write a picture; equal pixels give equal bytes."""
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")


def _plain(obj: Any) -> Any:
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple | set | frozenset):
        return [_plain(value) for value in (sorted(obj) if isinstance(obj, set | frozenset) else obj)]
    if hasattr(obj, "tolist"):
        return _plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj if obj is None or isinstance(obj, bool | int | float | str) else str(obj)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key by which names are sorted as people would: ``2`` before ``10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts]
