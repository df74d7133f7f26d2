"""Small constant tensors, made once for each device: to make one on a GPU is to wait for it."""

from functools import lru_cache

import torch
from torch import Tensor

Values = tuple[float, ...]


def constant(values: Values, like: Tensor) -> Tensor:
    """Return numbers as a vector with the type and the device of ``like``, for reading alone."""
    return _made(values, like.dtype, like.device)


@lru_cache(maxsize=4096)
def _made(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or a gradient could not keep it
        return torch.tensor(values, dtype=dtype, device=device)
