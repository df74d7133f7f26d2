"""Pictures of any size and colour as they are, made square and of one size."""

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metagen.errors import MetagenError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
UNREAD = frozenset(
    (".heic", ".heif", ".avif", ".svg", ".psd", ".jxl", ".jp2", ".cr2", ".nef", ".arw", ".dng")
)
"""Pictures of kinds that are not read, and are named so rather than passed over."""
MAX_PIXELS = 100_000_000
Fit = Literal["crop", "stretch"]
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, MemoryError)


def read(path: Path, size: int, channels: int, fit: Fit = "crop", limit: int = MAX_PIXELS) -> Tensor:
    """Read a picture file of at most ``limit`` pixels as uint8 (C, size, size).

    A camera's rotation is undone, what is transparent becomes white, of a film the first frame is taken.

    Raises:
        MetagenError: why it cannot be read, without its name.
    """
    if not path.is_file():  # a pipe would be waited for
        raise MetagenError(no_file(path))
    if path.suffix.lower() in UNREAD:
        raise MetagenError(f"a {path.suffix[1:].upper()} file; save it as PNG or JPEG")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # of damaged EXIF data and of very large pictures
            if image.width * image.height > limit:
                raise MetagenError(f"has {image.width} x {image.height} pixels, more than {limit:,}")
            image.draft("RGB" if channels == 3 else "L", (2 * size, 2 * size))  # decodes a JPEG at its scale
            return square(ImageOps.exif_transpose(image), size, channels, fit)
    except Image.UnidentifiedImageError as error:
        raise MetagenError(f"no picture of a known kind ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise MetagenError(f"has more than {limit:,} pixels") from error
    except _BROKEN as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines() or ["damaged file"]
        raise MetagenError(reason[0]) from error


def no_file(path: Path) -> str:
    """Return what a path is that leads to no regular file."""
    if os.path.exists(path):
        return "no regular file"
    if path.is_symlink():
        return "a link to nothing"
    return "no file"


def square(image: Image.Image, size: int, channels: int, fit: Fit = "crop") -> Tensor:
    """Return a picture as uint8 (C, size, size): the square in its middle (``crop``), or all of it."""
    image = _flat(image).convert("RGB" if channels == 3 else "L")
    if fit == "crop" and image.width != image.height:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    array = np.array(image).reshape(size, size, channels)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def picture(value: Any) -> Image.Image:
    """Return what a data set gives as an image (a PIL image, an array or a tensor) as a PIL image.

    Arrays are (H, W) or (H, W, C), tensors (H, W) or (C, H, W), of bytes or
    of numbers in [0, 1]; C is 1, 3 or 4.

    Raises:
        MetagenError: it is none of these.
    """
    if isinstance(value, Image.Image):
        return value
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if isinstance(value, Tensor) and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        kind = f"{type(value).__name__} of shape {tuple(getattr(value, 'shape', ()))}"
        raise MetagenError(f"expected a PIL image, an array (H, W, C) or a tensor (C, H, W), found {kind}")
    if array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise MetagenError("expected numbers in [0, 1]: leave Normalize out of the data set's transform")
        array = np.rint(array * 255.0)
    elif not (array.min() >= 0 and array.max() <= 255):
        raise MetagenError(f"expected bytes from 0 to 255, found {array.min()} to {array.max()}")
    return Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)))


def eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey picture of wider numbers with bytes, any other as it is.

    Fractions are read by their range: from 0 to 1, else from 0 to 255, else their own. The range of whole
    numbers is their own, since 12-bit data in 16-bit files is common.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    wide = np.asarray(image, np.float64)
    wide = np.where(np.isfinite(wide), wide, 0)
    low, high = wide.min(), wide.max()
    if image.mode == "F":
        if low >= 0 and high <= 255:
            low, high = 0, 1 if high <= 1 else 255
        span = (high - low) or 1
    else:
        span = high - low if high - low > 255 else 65535
    return Image.fromarray(((wide - low) / span * 255).astype(np.uint8))


def _flat(image: Image.Image) -> Image.Image:
    """Return a picture without transparency (on white) and with 8 bits a channel."""
    image = eight_bits(image)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba)
    return image
