"""Letters and symbols of the fonts that ship inside matplotlib: no file, no download."""

import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.ranges import Text

FACES = tuple(
    [
        f"DejaVu{family}{style}"
        for family, styles in {
            "Sans": ("", "-Bold", "-Oblique", "-BoldOblique"),
            "SansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
            "Serif": ("", "-Bold", "-Italic", "-BoldItalic"),
        }.items()
        for style in styles
    ]
    + [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
    + ["cmr10", "cmss10", "cmtt10", "cmb10", "cmti10"]
)
LEAST = 11
"""Faces that a character needs to be a class."""
_POINTS, _CANVAS = 100, 200


class Glyphs(Dataset):
    """About 1,100 letters and symbols in 11 to 21 faces each, of any size, framed as MNIST's digits are.

    A class is a character, ``U+0041``, an image of it one face: DejaVu, STIX and Computer Modern, upright,
    bold and slanted. Left out are accented letters, digits and numbers of any script, and characters that
    the first face draws as one before: a Greek and a Latin A must not lie on both sides of a split. ``root``
    is not used.
    """

    name = "glyphs"

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "0.8/0.1/0.1",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def params(self) -> dict[str, Any]:
        """Return the versions of what draws."""
        import matplotlib
        import PIL

        return {"matplotlib": matplotlib.__version__, "pillow": PIL.__version__}

    def sources(self) -> list[Path]:
        """Return no file."""
        return []

    def read(self) -> Bank:
        """Draw the images."""
        images: list[np.ndarray] = []
        labels: list[int] = []
        names: list[str] = []
        seen: set[bytes] = set()
        for character, drawn in _characters():
            first = hashlib.sha256(drawn[0].tobytes()).digest()
            if len(drawn) < LEAST or first in seen:
                continue
            seen.add(first)
            labels += [len(names)] * len(drawn)
            names.append(f"U+{character:04X}")
            images += [_framed(image, self.size) for image in drawn]
        held = torch.zeros(len(labels), dtype=torch.bool)
        return Bank(self.name, torch.from_numpy(np.stack(images)), torch.tensor(labels), tuple(names), held)


def _characters() -> Iterator[tuple[int, list[Image.Image]]]:
    """Yield every character that is eligible with its drawings in the faces that have it."""
    import matplotlib
    from fontTools.ttLib import TTFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    paths = [folder / f"{face}.ttf" for face in FACES]
    known = [frozenset(TTFont(path, lazy=True).getBestCmap()) for path in paths]
    fonts = [ImageFont.truetype(str(path), _POINTS) for path in paths]
    for character in range(0x21, 0x2C00):
        having = [font for font, known in zip(fonts, known, strict=True) if character in known]
        if len(having) >= LEAST and _eligible(chr(character)):
            drawn = [_drawn(chr(character), font) for font in having]
            yield character, [image for image in drawn if image.getbbox()]


def _eligible(character: str) -> bool:
    """Return whether it is a letter without an accent, or a symbol; neither a digit nor a number."""
    category = unicodedata.category(character)
    if unicodedata.numeric(character, None) is not None:
        return False
    if category.startswith("L"):
        return not unicodedata.decomposition(character)
    return category in ("Sm", "So", "Po") and ord(character) > 0x2000


def _drawn(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    image = Image.new("L", (_CANVAS, _CANVAS))
    ImageDraw.Draw(image).text((_CANVAS // 2, _CANVAS // 2), character, font=font, fill=255, anchor="mm")
    return image


def _framed(image: Image.Image, size: int) -> np.ndarray:
    """Frame a drawing as MNIST's digits are: its longer side 20/28 of ``size``, its mass in the middle."""
    ink = image.crop(image.getbbox())
    scale = 20 / 28 * size / max(ink.size)
    w, h = (max(1, round(scale * side)) for side in ink.size)
    small = np.asarray(ink.resize((w, h), Image.Resampling.BILINEAR))
    out = np.zeros((size, size), np.uint8)
    top, left = (
        round(min(max((size - 1) / 2 - np.average(np.arange(side), weights=mass), 0), size - side))
        for side, mass in ((h, small.sum(1) + 1e-9), (w, small.sum(0) + 1e-9))
    )
    out[top : top + h, left : left + w] = small
    return out
