"""A function of many rows, a few of them at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

AT_ONCE = 128
"""Images that are drawn at a time: more would not stay in a processor's cache, and take memory."""


def in_parts(function: Callable[..., Tensor], *rows: Tensor, most: int = AT_ONCE) -> Tensor:
    """Return ``function(*rows)``, of at most ``most`` rows at a time.

    A graph that is exported has them all at once: it is the same for any number of rows.

    Args:
        function: of tensors (B, ...), row by row, to a tensor (B, ...).
        rows: the tensors.
        most: B of one call.
    """
    if torch.compiler.is_exporting() or len(rows[0]) <= most:
        return function(*rows)
    return torch.cat([function(*part) for part in zip(*(x.split(most) for x in rows), strict=True)])
