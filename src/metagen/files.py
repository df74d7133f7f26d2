"""Files that are either whole or not there."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from metagen.errors import MetagenError


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it there when the block succeeds.

    Folders are made. The temporary file lies beside its target because a move is atomic within one
    file system only; it is gone afterwards, whatever happens.

    Raises:
        MetagenError: the file cannot be written (a full disk, a missing permission).
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        with suppress(OSError):  # not every file system lets a folder be flushed
            _flush(target.parent)
    except OSError as error:
        raise MetagenError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        # the reason of a failure must not be hidden by the failure to clean up after it
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system write a file or a folder to the disk now: a power cut then cannot empty it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` as standard JSON with sorted keys; NaN and infinities become null.

    Tensors and arrays become lists, other unknown objects (paths, versions) their ``str``.
    """
    text = json.dumps(_plain(obj), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
