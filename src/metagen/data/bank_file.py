"""A bank as one file that is mapped into memory: its images first, then what belongs to them.

Images (M, C, H, W), labels (M,) as little-endian int64 and held (M,) as bytes lie one after the other, then
JSON with names, shape and checksums, then the length of that JSON and a mark. The images come first, so that
they can be written one by one before it is known how many there will be.
"""

import hashlib
import json
import struct
import warnings
from collections.abc import Generator
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metagen.data.bank import Bank
from metagen.reading import opened

_MARK = b"METAGEN\2"
_END = struct.Struct("<Q8s")
CHECKED = 2**30
"""Bytes up to which a file is read through and checked whenever it is opened; a larger one on demand."""


class Labelled(NamedTuple):
    """What belongs to the images of a bank: see :class:`metagen.data.bank.Bank`."""

    labels: Tensor
    names: tuple[str, ...]
    held: Tensor


Stream = Generator[Tensor, None, Labelled]
"""Yields images (B, C, H, W) in the order of their classes and returns what belongs to them."""


class UnwritableError(OSError):
    """The file cannot be written: a full disk, a missing permission."""


def write(file: FileIO, name: str, stream: Stream) -> str:
    """Write a bank to an empty, unbuffered file, never holding all of it; return the checksum of it all.

    Raises:
        UnwritableError: the file cannot be written.
    """
    shape: list[int] = []
    count = 0
    labelled = None
    while labelled is None:
        try:
            part = next(stream)
        except StopIteration as stop:
            labelled = stop.value
        else:
            shape, count = list(part.shape[1:]), count + len(part)
            _write(file, part.contiguous().numpy().data)
    _write(file, labelled.labels.numpy().astype("<i8").data, labelled.held.numpy().data)
    bank = _bank(Path(file.name), name, [count, *shape], labelled)
    content = {"name": name, "names": bank.names, "shape": [count, *shape], "sha256": bank.sha256}
    content["checksum"] = checksum(bank)
    text = json.dumps(content).encode()
    _write(file, text, _END.pack(len(text), _MARK))
    return str(content["checksum"])


def _write(file: FileIO, *parts: bytes | memoryview) -> None:
    try:
        for part in parts:
            left = memoryview(part).cast("B")
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        raise UnwritableError(error.errno, error.strerror or str(error)) from error


def read(path: Path, check: bool | None = None) -> Bank:
    """Return the bank in a file, its images mapped, not read; nothing may write to them.

    Args:
        path: of the file.
        check: whether its content is read through and checked; by default up to :data:`CHECKED` bytes.

    Raises:
        ValueError, OSError, KeyError: it is truncated, corrupt or none.
    """
    content = describe(path)
    m, start = content["shape"][0], int(np.prod(content["shape"]))
    rest = np.fromfile(path, np.uint8, 9 * m, offset=start)
    labels = torch.from_numpy(rest[: 8 * m].view("<i8").astype(np.int64))
    held = torch.from_numpy(rest[8 * m :].view(bool).copy())
    bank = _bank(path, content["name"], content["shape"], Labelled(labels, tuple(content["names"]), held))
    check = path.stat().st_size <= CHECKED if check is None else check
    if not check:
        bank.__dict__["sha256"] = content["sha256"]
    if checksum(bank) != content["checksum"] or bank.sha256 != content["sha256"]:
        raise ValueError("its checksum does not match its content")
    return bank


def describe(path: Path) -> dict[str, Any]:
    """Return name, names, shape and checksums of a bank's file without reading its images."""
    size = path.stat().st_size
    with opened(path) as file:
        file.seek(max(0, size - _END.size))
        tail = file.read()
        length, mark = _END.unpack(tail) if len(tail) == _END.size else (0, b"")
        if mark != _MARK or length > size:
            raise ValueError("it does not end as a bank does")
        file.seek(size - _END.size - length)
        content: dict[str, Any] = json.loads(file.read(length))
    if size != int(np.prod(content["shape"])) + 9 * content["shape"][0] + length + _END.size:
        raise ValueError("its length is not what its description says")
    return content


def checksum(bank: Bank) -> str:
    """Return the checksum of all that a bank holds; that of the images is its ``sha256``."""
    digest = hashlib.sha256(json.dumps([bank.sha256, bank.name, bank.names]).encode())
    digest.update(bank.held.numpy().tobytes())
    return digest.hexdigest()


def in_memory(name: str, stream: Stream) -> Bank:
    """Return the bank of a stream without a file."""
    parts = []
    while True:
        try:
            parts.append(next(stream))
        except StopIteration as stop:
            return Bank(name, torch.cat(parts), *stop.value)


def _bank(path: Path, name: str, shape: list[int], labelled: Labelled) -> Bank:
    mapped = np.memmap(path, np.uint8, mode="r", shape=tuple(shape))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not writable.*")  # nobody writes to a bank's images
        images = torch.from_numpy(mapped)
    return Bank(name, images, *labelled)
