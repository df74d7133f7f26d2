"""Images that are given in Python: tensors, or for each class a list of pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metagen.data.form import Form
from metagen.errors import MetagenError

Images = Tensor | np.ndarray | Sequence[Sequence[Any]]
"""Images of N classes, K of each: (N, K, C, H, W), or a list of lists of PIL images or paths."""
LISTS = "for each class a list of pictures, as in [['a1.png', 'a2.png'], ['b1.png', 'b2.png']]"


def as_images(images: Images, form: Form, name: str = "images") -> Tensor:
    """Return images as floats (N, K, C, H, W) in [0, 1].

    Args:
        images: (N, K, C, H, W), or arrays (N, K, H, W) and (N, K, H, W, 3), floats in [0, 1] or uint8; or for
            each class a list of tensors, PIL images or paths.
        form: of the images of a run.
        name: what errors call them.

    Raises:
        MetagenError: they are of another kind, shape or size, or unequal numbers of each class.
    """
    x = _stacked(images, form, name)
    if x.dim() == 4:
        x = x.unsqueeze(2)
    elif form.channels > 1 and x.shape[2:] == form.shape:
        x = x.movedim(-1, 2)
    shape = (form.channels, form.size, form.size)
    if x.dim() != 5 or x.shape[2:] != shape:
        raise MetagenError(f"{name} of shape {tuple(x.shape)}: expected {_expected(form)}")
    if 0 in x.shape[:2]:
        raise MetagenError(f"{name} of shape {tuple(x.shape)}: expected one class and one image at least")
    if not (float(x.min()) >= 0 and float(x.max()) <= 1):
        raise MetagenError(f"{name}: expected pixels in [0, 1], or uint8")
    return x


def _expected(form: Form) -> str:
    return f"(N, K, {form.channels}, {form.size}, {form.size})"


def _stacked(images: Images, form: Form, name: str) -> Tensor:
    """Return images as one tensor of floats, of whatever shape."""
    if isinstance(images, Tensor | np.ndarray):
        return _floats(images, name)
    if not _is_list(images) or not all(_is_list(row) or _is_stack(row) for row in images):
        raise MetagenError(f"{name}: expected a tensor {_expected(form)}, or {LISTS}, {_instead(images)}")
    counts = [len(row) for row in images]
    if len(set(counts)) != 1 or 0 in counts:
        raise MetagenError(f"{name}: expected as many of each class, at least 1, not {counts}")
    rows = [[_one(image, form, name) for image in row] for row in images]
    sizes = {tuple(image.shape) for row in rows for image in row}
    if len(sizes) > 1:
        raise MetagenError(f"{name}: expected images of one shape, not {' and '.join(map(str, sizes))}")
    return torch.stack([torch.stack(row) for row in rows])


def _is_list(images: Any) -> bool:
    return isinstance(images, Sequence) and not isinstance(images, str | bytes)


def _is_stack(images: Any) -> bool:
    return isinstance(images, Tensor | np.ndarray) and images.ndim > 0


def _instead(images: Any) -> str:
    """Say what came in the place of lists, and how lists are made of it."""
    if isinstance(images, str | Path) and Path(images).is_dir():
        nested = any(path.is_dir() for path in Path(images).iterdir())
        lists = (
            "[sorted(c.iterdir()) for c in sorted(Path({}).iterdir())]"
            if nested
            else "[sorted(Path({}).iterdir())]"
        )
        return f"not a folder: {lists.format(repr(str(images)))} lists its pictures"
    if isinstance(images, str | Path):
        return f"not the text '{images}': a single picture is [['{images}']]"
    if isinstance(images, Mapping):
        return "not a dict: its values are such lists, list(images.values())"
    if _is_list(images):
        return "not a list of single pictures: put those of one class into a list of its own"
    return f"not {'None' if images is None else type(images).__name__}"


def _floats(images: Tensor | np.ndarray, name: str) -> Tensor:
    """Return an array as a tensor of floats, of which 255 is 1 where it is of bytes."""
    try:
        x = torch.as_tensor(images)
    except (TypeError, ValueError) as error:
        raise MetagenError(
            f"{name}: expected an array of floats or of uint8, not of {images.dtype}"
        ) from error
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def _one(image: Any, form: Form, name: str) -> Tensor:
    """Return one image as floats (C, H, W); a picture or a path is read as ``metagen generate`` reads it."""
    if isinstance(image, Tensor | np.ndarray):
        x = _floats(image, name)
        x = x if x.dim() == 3 else x.unsqueeze(0)
        return x.movedim(-1, 0) if form.channels > 1 and x.shape == form.shape else x
    if isinstance(image, Image.Image | str | Path):
        x = torch.from_numpy(form.read(image)).float() / 255
        return x.unsqueeze(0) if x.dim() == 2 else x.movedim(-1, 0)
    raise MetagenError(f"{name}: expected tensors, PIL images or paths, not {type(image).__name__}")
