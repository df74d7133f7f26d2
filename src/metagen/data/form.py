"""The form of the images that a run takes: their side, their channels, and whether they are drawings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from metagen.data import photographs, pixels
from metagen.data.photographs import Fit
from metagen.data.user_pictures import MAX_PIXELS, frame, read_image
from metagen.errors import MetagenError


class Form(NamedTuple):
    """What every image of a run is like.

    size:     H = W.
    channels: 1 for grey, 3 for colour.
    ink:      whether they are drawings, light on dark, whose ink is cut out and centred; other pictures are
              taken as they are.
    fit:      of a picture that is not square, the square in its middle (``crop``) or all (``stretch``).
    """

    size: int
    channels: int = 1
    ink: bool = True
    fit: Fit = "crop"

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Form":
        """Return the form of a data set's images, from its node of a configuration.

        A data set that does not say whether it holds drawings does if it is grey.

        Raises:
            MetagenError: its images have no size.
        """
        size, channels = data.get("size"), data.get("channels") or 1
        if not isinstance(size, int) or size < 1:
            raise MetagenError(f"data.size={size}: expected the side of an image; name another run")
        return cls(size, channels, bool(data.get("ink", channels == 1)), data.get("fit", "crop"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image as an array: (H, W), or (H, W, 3) in colour."""
        return (self.size, self.size) if self.channels == 1 else (self.size, self.size, self.channels)

    def read(self, path: Path | str | Image.Image, name: str = "", limit: int = MAX_PIXELS) -> np.ndarray:
        """Read one picture as uint8 (H, W) or (H, W, 3).

        Args:
            path: a file, or a PIL image.
            name: what errors call it instead of its path.
            limit: how many pixels it may have.

        Raises:
            MetagenError: it is no picture, or cannot be read, or a drawing without ink.
        """
        if self.ink:
            return read_image(path, self.size, name=name, limit=limit)
        name = name or ("the image" if isinstance(path, Image.Image) else str(path))
        try:
            if isinstance(path, Image.Image):
                x = photographs.square(ImageOps.exif_transpose(path), self.size, self.channels, self.fit)
            else:
                x = photographs.read(Path(path), self.size, self.channels, self.fit, limit)
        except MetagenError as error:
            raise MetagenError(f"cannot read the image {name}: {error}") from error
        return as_array(x)

    def drawn(self, ink: np.ndarray) -> np.ndarray:
        """Return ink (H, W), coverage in [0, 1], as an image: framed, dark on white unless it is a drawing.

        Raises:
            MetagenError: there is no ink.
        """
        light = frame(ink, self.size)
        return light if self.ink else self._channeled(255 - light)

    def like(self, images: np.ndarray) -> np.ndarray:
        """Return images of another form, uint8 (K, H, W) or (K, H, W, 3), in this one."""
        if images.shape[1:] == self.shape:
            return images
        if self.ink and images.ndim == 3:
            return np.stack([frame(image / 255, self.size) for image in images])
        x = torch.from_numpy(images)
        x = x.unsqueeze(1) if x.ndim == 3 else x.movedim(-1, 1)
        resized = pixels.channeled(pixels.resize(x, self.size), self.channels)
        return np.stack([as_array(one) for one in resized])

    def _channeled(self, grey: np.ndarray) -> np.ndarray:
        return grey if self.channels == 1 else np.repeat(grey[..., None], self.channels, -1)


def as_array(x: torch.Tensor) -> np.ndarray:
    """Return an image (C, H, W) as an array (H, W), or (H, W, 3) in colour."""
    array: np.ndarray = (x[0] if len(x) == 1 else x.movedim(0, -1)).contiguous().numpy()
    return array
