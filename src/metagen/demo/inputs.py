"""The drawings and uploads of a visitor, made to look like the data; none of it is trusted."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from metagen.data.form import Form
from metagen.demo.adapted import Support
from metagen.demo.engine import MAX_SHOTS
from metagen.errors import MetagenError

MAX_FILE = 5 * 2**20
"""Bytes of an uploaded file."""
MAX_PIXELS = 25_000_000
MAX_POINTS = 20_000
MAX_TEXT = 1_000_000
"""Characters of all strokes as JSON."""
SIDE = 400
"""Pixels to which the longer side of a drawing is scaled before it is framed."""
PEN = SIDE * 2.2 / (20 - 2.2)
"""Its stroke, 2.2 pixels where the ink spans 20, as wide as handwriting is in the data sets."""
DOT = 0.03
"""Of the canvas is the extent below which a drawing is a slip of the pointer."""

Stroke = list[tuple[float, float]]


def from_strokes(text: str | None, forms: Sequence[Form]) -> Support:
    """Turn drawings into support images; empty canvases and mere dots are left out.

    However large somebody draws, the strokes come out equally wide: it is the path of the pen that
    is framed, and the pen is put on it afterwards.

    Args:
        text: JSON, for each canvas its strokes, each a list of points [x, y] in units of the canvas.
        forms: of the images wanted.

    Returns:
        The images of the class by form, or nothing where nothing is drawn.

    Raises:
        MetagenError: no such JSON, or too much of it.
    """
    drawings = [strokes for strokes in _drawings(text or "[]") if _extent(strokes) > DOT]
    if not drawings:
        return {}
    inks = [_ink(strokes) for strokes in drawings]
    return {form: np.stack([form.drawn(ink) for ink in inks]) for form in forms}


def _drawings(text: str) -> list[list[Stroke]]:
    if len(text) > MAX_TEXT:
        raise MetagenError("the drawings have too many points: clear them and draw with fewer strokes")
    try:
        drawings = [
            [[(float(x), float(y)) for x, y in stroke] for stroke in strokes] for strokes in json.loads(text)
        ]
    except (ValueError, TypeError, RecursionError) as error:
        raise MetagenError("cannot read the drawings: reload the page and draw again") from error
    points = [number for strokes in drawings for stroke in strokes for point in stroke for number in point]
    if len(drawings) > MAX_SHOTS or len(points) > 2 * MAX_POINTS or not all(-1 <= p <= 2 for p in points):
        raise MetagenError("cannot read the drawings: reload the page and draw again, with fewer strokes")
    return drawings


def _extent(strokes: Sequence[Stroke]) -> float:
    points = np.array([point for stroke in strokes for point in stroke])
    return float(np.ptp(points, axis=0).max()) if len(points) else 0.0


def _ink(strokes: Sequence[Stroke]) -> np.ndarray:
    """Put a round pen on the strokes: coverage (H, W) in [0, 1]."""
    points = [np.array(stroke) for stroke in strokes if stroke]
    low, scale = np.concatenate(points).min(0), SIDE / _extent(strokes)
    image = Image.new("L", (int(SIDE + 2 * PEN),) * 2)
    pen = ImageDraw.Draw(image)
    for stroke in points:
        path = [(float(x), float(y)) for x, y in (stroke - low) * scale + PEN]
        pen.line(path, 255, round(PEN), joint="curve")
        for x, y in (path[0], path[-1]):
            pen.ellipse((x - PEN / 2, y - PEN / 2, x + PEN / 2, y + PEN / 2), 255)
    return np.asarray(image) / 255


def from_files(paths: Sequence[Path], forms: Sequence[Form]) -> Support:
    """Turn uploaded pictures of one class into support images, as ``metagen generate`` does.

    Raises:
        MetagenError: too many or too large files, or one that shows nothing or is no picture.
    """
    if not 1 <= len(paths) <= MAX_SHOTS:
        raise MetagenError(f"{len(paths)} files: choose 1 to {MAX_SHOTS} images of one symbol")
    for path in paths:
        if path.stat().st_size > MAX_FILE:
            raise MetagenError(f"{path.name} is larger than {MAX_FILE // 2**20} MB: make it smaller")
    return {form: np.stack([_read(path, form) for path in paths]) for form in forms}


def _read(path: Path, form: Form) -> np.ndarray:
    return form.read(path, path.name, MAX_PIXELS)


def from_images(images: np.ndarray, forms: Sequence[Form]) -> Support:
    """Turn images of a data set, uint8 (K, H, W) or (K, H, W, 3), into those of other forms."""
    return {form: form.like(images) for form in forms}
