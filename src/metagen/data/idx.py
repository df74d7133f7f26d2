"""The IDX format of MNIST and its siblings."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metagen.errors import MetagenError

_AGAIN = "it is truncated or corrupt: delete it, and it will be downloaded again"


def check_md5(path: Path, expected: str) -> None:
    """Raise a MetagenError unless the file's MD5 is ``expected``."""
    found = md5(path)
    if found != expected:
        raise MetagenError(f"{path}: expected MD5 {expected}, found {found}; {_AGAIN}")


def md5(path: Path) -> str:
    """Return the MD5 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def decode(data: bytes, source: Path) -> Tensor:
    """Return the uint8 array of IDX bytes, gzipped or not; ``source`` names them in errors.

    Raises:
        MetagenError: the header is not IDX, or announces another length.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise MetagenError(f"{source}: expected a whole gzip file, found '{error}'; {_AGAIN}") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise MetagenError(f"{source}: expected an IDX header, found {data[:4].hex()!r}; {_AGAIN}")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4).tolist()
    start = 4 + 4 * len(shape)
    if not math.prod(shape):
        raise MetagenError(f"{source}: expected images or labels, found the shape {tuple(shape)}; {_AGAIN}")
    if len(data) != start + math.prod(shape):
        expected = start + math.prod(shape)
        raise MetagenError(f"{source}: its header announces {expected} bytes, found {len(data)}; {_AGAIN}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).reshape(shape)


def pair(images: Tensor, labels: Tensor, source: Path, side: int = 28) -> tuple[Tensor, Tensor]:
    """Return images (M, side, side) and int64 labels (M,) after checking that they are of this shape."""
    if images.ndim != 3 or images.shape[1:] != (side, side) or labels.shape != images.shape[:1]:
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise MetagenError(
            f"{source}: expected M images of {side}x{side} and M labels, found shapes {shapes}; {_AGAIN}"
        )
    return images, labels.long()
