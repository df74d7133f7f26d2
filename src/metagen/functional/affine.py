"""Where an affine map takes the pixels of an image."""

import torch
from torch import Tensor


def affine_grid(maps: Tensor, height: int, width: int) -> Tensor:
    r"""Return A u + b for the centres u = (x, y) of all pixels, (B, H, W, 2), in [-1, 1] across the image.

    What :func:`torch.nn.functional.affine_grid` returns without ``align_corners``, which calls a kernel of
    linear algebra for every image and takes five times as long on a CPU.

    Args:
        maps: (B, 2, 3), the matrix A beside the column b.
        height: H.
        width: W.
    """
    x, y = (_centres(side, maps) for side in (width, height))
    a, b, c = maps[:, None, None].unbind(-1)  # columns (B, 1, 1, 2)
    return a * x[:, None] + b * y[:, None, None] + c


def _centres(side: int, like: Tensor) -> Tensor:
    return torch.linspace(-1, 1, side, dtype=like.dtype, device=like.device) * (side - 1) / side
