"""Counter-based random numbers: pure functions of an int64 key, made of tensor operations alone.

A number depends on its key and its position only, so that episode *i* is the same in every
process, batch size and vectorisation, and nothing needs a generator's state to be saved. The
generator is SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*,
OOPSLA 2014); it runs under ``torch.func.vmap`` and on any device.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MUL1 = 0xBF58476D1CE4E5B9 - 2**64
_MUL2 = 0x94D049BB133111EB - 2**64


Source = Callable[[str, Callable[[], Tensor]], Tensor]
"""Gives the numbers of a draw, of which it is told the kind, and a function that draws them."""
_source: ContextVar[Source | None] = ContextVar("source", default=None)


@contextmanager
def drawn_by(source: Source) -> Iterator[None]:
    """Have ``source`` give all numbers of this thread, as to listen to a sampler or to feed it.

    Args:
        source: is called with ``bits``, ``uniform`` or ``normal`` and with what draws the numbers.
    """
    before = _source.set(source)
    try:
        yield
    finally:
        _source.reset(before)


def _draw(kind: str, numbers: Callable[[], Tensor]) -> Tensor:
    source = _source.get()
    return numbers() if source is None else source(kind, numbers)


def _shift(z: Tensor, n: int) -> Tensor:
    """Logical right shift: torch's own shift of a signed integer keeps the sign."""
    return (z >> n).bitwise_and_((1 << (64 - n)) - 1)


def _mix(z: Tensor) -> Tensor:
    # In place: a new tensor for each of the eleven operations takes a third longer.
    z = _shift(z, 30).bitwise_xor_(z).mul_(_MUL1)
    z = _shift(z, 27).bitwise_xor_(z).mul_(_MUL2)
    return _shift(z, 31).bitwise_xor_(z)


def key(*words: int) -> Tensor:
    """Return the key, an int64 scalar, of a sequence of integers such as ``(seed, stage)``."""
    out = torch.zeros((), dtype=torch.int64)
    for word in words:
        out = fold_in(out, word)
    return out


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """Derive a new key from ``key`` (...) and ``data`` (broadcastable int64): key' = mix(key, data)."""
    if isinstance(data, Tensor):
        return _mix(_mix(key + _GOLDEN) + (data.to(key.device) + 1) * _GOLDEN)
    # As a number of Python's it travels with the operation: a tensor made of it on a GPU would be waited for.
    word = (int(data) + 1) * _GOLDEN
    return _mix(_mix(key + _GOLDEN) + ((word + 2**63) % 2**64 - 2**63))


def bits(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return 64 random bits per entry: keys (B...) give int64 (B..., *shape)."""
    return _draw("bits", lambda: _bits(key, shape))


def uniform(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers from the open interval (0, 1): keys (B...) give (B..., *shape)."""
    return _draw("uniform", lambda: _uniform(key, shape, dtype))


def normal(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal numbers by the inverse distribution function, (B..., *shape)."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return _draw(
        "normal", lambda: (torch.erfinv(2 * _uniform(key, shape, wide) - 1) * math.sqrt(2)).to(dtype)
    )


def subset(key: Tensor, n: int, k: int) -> Tensor:
    """Draw ``k`` distinct integers below ``n`` in random order: keys (B...) give int64 (B..., k)."""
    return _shift(bits(key, (n,)), 1).argsort(-1)[..., :k]


def _bits(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    counter = torch.arange(1, math.prod(shape) + 1, device=key.device) * _GOLDEN
    return _mix(key.unsqueeze(-1) + counter).reshape((*key.shape, *shape))


def _uniform(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    wide = dtype == torch.float64
    n = 52 if wide else 23
    u = (_shift(_bits(key, shape), 64 - n).to(torch.float64 if wide else torch.float32) + 0.5) / 2**n
    return u.to(dtype)
