"""Icons in colour, drawn by code from a list of shapes: no file to read elsewhere, no download."""

import colorsys
import hashlib
import math
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from metagen.data.bank import Bank
from metagen.data.dataset import Dataset, ImageChannels, ImageSide
from metagen.errors import MetagenError
from metagen.ranges import Text

EACH = 40
"""Images of a class."""
_FINE = 4  # so many times as large are they drawn, for smooth edges
Rgb = tuple[int, int, int]


class Shape(NamedTuple):
    """A polygon ``p``, line ``l``, disc ``c`` or ellipse ``e`` in [-1, 1]^2, y downwards."""

    kind: str
    colour: str
    numbers: tuple[float, ...]  # of a line the width first


class Icons(Dataset):
    r"""182 classes of 40 images in colour: objects, animals, faces, flowers, stars, polygons, flags, signs.

    A class is a list of shapes (``icons.txt``) whose parts have the colours a, b and c. An image of it draws
    them in a random palette on a random ground, after a random affine map: turned by N(0, 8) degrees, scaled
    by exp N(0, 0.08^2) in each direction, sheared and moved a little, every point jittered by N(0, 0.015^2),
    with lines of random width. So what a class has in common is its form, not its colour. ``root`` is not
    used.
    """

    name = "icons"
    default_channels = 3

    def __init__(
        self,
        root: Text = "data",
        size: ImageSide = 32,
        split: str = "0.7/0.1/0.2",
        cache: str | None = None,
        channels: ImageChannels | None = None,
    ) -> None:
        super().__init__(root, size, split, cache, channels)

    def params(self) -> dict[str, Any]:
        """Return what the drawings depend on."""
        import PIL

        return {"shapes": hashlib.sha256(repr(shapes()).encode()).hexdigest(), "pillow": PIL.__version__}

    def sources(self) -> list[Path]:
        """Return no file."""
        return []

    def read(self) -> Bank:
        """Draw the images, (M, 3, size, size)."""
        recipes = shapes()
        drawn = [
            draw(recipe, self.size, np.random.default_rng([number, index]))
            for number, recipe in enumerate(recipes.values())
            for index in range(EACH)
        ]
        images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
        labels = torch.arange(len(recipes)).repeat_interleave(EACH)
        return Bank(self.name, images, labels, tuple(recipes), torch.zeros(len(labels), dtype=torch.bool))


def shapes() -> dict[str, list[Shape]]:
    """Return the shapes of every class: of ``icons.txt``, then of the families that a number tells apart."""
    text = files(__package__).joinpath("icons.txt").read_text(encoding="utf-8")
    lines = [line.partition(": ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: [_parsed(part) for part in recipe.split("; ")] for name, _, recipe in lines} | _families()


def draw(recipe: list[Shape], size: int, random: np.random.Generator) -> np.ndarray:
    """Return one image of a class, uint8 (size, size, 3)."""
    colours, side = _palette(random), _FINE * size
    turn, scale = math.radians(random.normal(0, 8)), np.exp(random.normal(0, 0.08, 2)) * 0.82
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array(
        [[scale[0], random.normal(0, 0.06)], [0, scale[1]]]
    )
    move, pen = random.normal(0, 0.05, 2), math.exp(random.normal(0, 0.15))
    image = Image.new("RGB", (side, side), colours["g"])
    brush = ImageDraw.Draw(image)
    for shape in recipe:
        width, outline = _outline(shape)
        points = outline + (0 if shape.kind in "ce" else random.normal(0, 0.015, outline.shape))
        placed = [tuple(p) for p in (points @ matrix.T + move + 1) * side / 2]
        if shape.kind == "l":
            thick = max(1, round(width * pen * side / 2))
            brush.line(placed, colours[shape.colour], thick, joint="curve")
            for x, y in (placed[0], placed[-1]):
                brush.ellipse(
                    (x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), colours[shape.colour]
                )
        else:
            brush.polygon(placed, colours[shape.colour])
    return np.asarray(image.reduce(_FINE))


def _outline(shape: Shape) -> tuple[float, np.ndarray]:
    """Return the width of a line, and the points (P, 2) of a shape's outline."""
    n = shape.numbers
    if shape.kind == "l":
        return n[0], np.reshape(n[1:], (-1, 2))
    if shape.kind == "p":
        return 0.0, np.reshape(n, (-1, 2))
    x0, y0, x1, y1 = (n[0] - n[2], n[1] - n[2], n[0] + n[2], n[1] + n[2]) if shape.kind == "c" else n
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    centre, radius = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0]) / 2
    return 0.0, centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _palette(random: np.random.Generator) -> dict[str, Rgb]:
    """Return a palette: three hues at least a sixth of the circle apart on a pale or a deep ground."""
    start, step = random.random(), random.uniform(1 / 6, 5 / 12)
    pale = random.random() < 0.7
    ground = (random.random(), random.uniform(0.02, 0.2), random.uniform(0.88, 1)) if pale else (
        random.random(), random.uniform(0.4, 0.8), random.uniform(0.12, 0.3)
    )  # fmt: skip
    strong = [(start + i * step, random.uniform(0.55, 0.95), random.uniform(0.55, 0.95)) for i in range(3)]
    dark = (random.random(), 0.4, random.uniform(0.05, 0.2) if pale else random.uniform(0.4, 0.5))
    white = (0.0, 0.0, random.uniform(0.94, 1) if not pale else random.uniform(0.78, 0.84))
    hsv = dict(zip("abcdwg", [*strong, dark, white, ground], strict=True))
    return {key: _rgb(*value) for key, value in hsv.items()}


def _rgb(h: float, s: float, v: float) -> Rgb:
    r, g, b = colorsys.hsv_to_rgb(h % 1, s, v)
    return round(255 * r), round(255 * g), round(255 * b)


def _parsed(text: str) -> Shape:
    words = text.replace(",", " ").split()
    try:
        return Shape(words[0], words[1], tuple(map(float, words[2:])))
    except (IndexError, ValueError) as error:
        raise MetagenError(
            f"icons.txt: '{text}' is no shape: expected a kind, a colour and numbers"
        ) from error


def _families() -> dict[str, list[Shape]]:
    """Return polygons, stars, flowers, dice, flags and signs."""
    found = {f"polygon {n}": [Shape("p", "a", _ring(n, 0.75))] for n in range(3, 9)}
    found |= {f"star {n}": [Shape("p", "a", _star(n, 0.8, 0.36))] for n in range(4, 10)}
    for n in range(3, 10):
        petals = np.reshape(_ring(n, 0.48), (-1, 2))
        r = min(0.33, 0.9 * 0.48 * math.sin(math.pi / n) + 0.04)
        found[f"flower {n}"] = [Shape("c", "a", (x, y, r)) for x, y in petals] + [
            Shape("c", "b", (0, 0, 0.24))
        ]
    pips = {1: "e", 2: "ai", 3: "aei", 4: "acgi", 5: "acegi", 6: "acdfgi"}
    place = {c: ((i % 3 - 1) * 0.4, (i // 3 - 1) * 0.4) for i, c in enumerate("abcdefghi")}
    box = Shape("p", "a", (-0.7, -0.7, 0.7, -0.7, 0.7, 0.7, -0.7, 0.7))
    found |= {f"dice {n}": [box] + [Shape("c", "w", (*place[c], 0.13)) for c in cs] for n, cs in pips.items()}
    return found | {f"flag {name}": parts for name, parts in _flags().items()} | _signs(box)


def _flags() -> dict[str, list[Shape]]:
    def bar(colour: str, x0: float, y0: float, x1: float, y1: float) -> Shape:
        return Shape("p", colour, (x0, y0, x1, y0, x1, y1, x0, y1))

    cloth = bar("a", -0.85, -0.55, 0.85, 0.55)
    return {
        "two rows": [cloth, bar("b", -0.85, 0, 0.85, 0.55)],
        "two columns": [cloth, bar("b", 0, -0.55, 0.85, 0.55)],
        "three rows": [cloth, bar("b", -0.85, -0.18, 0.85, 0.55), bar("c", -0.85, 0.18, 0.85, 0.55)],
        "three columns": [cloth, bar("b", -0.28, -0.55, 0.85, 0.55), bar("c", 0.28, -0.55, 0.85, 0.55)],
        "cross": [cloth, bar("b", -0.4, -0.55, -0.15, 0.55), bar("b", -0.85, -0.12, 0.85, 0.12)],
        "saltire": [
            cloth,
            Shape("l", "b", (0.2, -0.78, -0.48, 0.78, 0.48)),
            Shape("l", "b", (0.2, -0.78, 0.48, 0.78, -0.48)),
        ],
        "disc": [cloth, Shape("c", "b", (0, 0, 0.33))],
        "diagonal": [cloth, Shape("p", "b", (-0.85, 0.55, 0.85, -0.55, 0.85, 0.55))],
        "wedge": [
            cloth,
            bar("b", -0.85, 0, 0.85, 0.55),
            Shape("p", "c", (-0.85, -0.55, -0.1, 0, -0.85, 0.55)),
        ],
        "canton": [cloth, bar("b", -0.85, -0.55, 0, 0)],
        "quarters": [cloth, bar("b", 0, -0.55, 0.85, 0), bar("b", -0.85, 0, 0, 0.55)],
        "lozenge": [cloth, Shape("p", "b", (-0.6, 0, 0, -0.42, 0.6, 0, 0, 0.42))],
    }


def _signs(box: Shape) -> dict[str, list[Shape]]:
    """Return six marks, each on a disc, on a square and on a triangle."""
    marks: dict[str, list[tuple[float, ...]]] = {
        "plus": [(0.18, -0.35, 0.0, 0.35, 0.0), (0.18, 0.0, -0.35, 0.0, 0.35)],
        "minus": [(0.2, -0.35, 0.0, 0.35, 0.0)],
        "tick": [(0.17, -0.35, 0.0, -0.08, 0.28, 0.38, -0.3)],
        "times": [(0.17, -0.28, -0.28, 0.28, 0.28), (0.17, -0.28, 0.28, 0.28, -0.28)],
        "equals": [(0.14, -0.32, -0.16, 0.32, -0.16), (0.14, -0.32, 0.16, 0.32, 0.16)],
        "alert": [(0.18, 0.0, -0.38, 0.0, 0.1), (0.2, 0.0, 0.36, 0.0, 0.37)],
    }
    boards: dict[str, Shape] = {
        "disc": Shape("c", "a", (0, 0, 0.75)),
        "square": box,
        "triangle": Shape("p", "a", (0, -0.95, 0.95, 0.7, -0.95, 0.7)),
    }
    return {
        f"{mark} on a {board}": [plate] + [Shape("l", "w", line) for line in lines]
        for board, plate in boards.items()
        for mark, lines in marks.items()
    }


def _ring(n: int, radius: float) -> tuple[float, ...]:
    angles = [2 * math.pi * i / n - math.pi / 2 for i in range(n)]
    return tuple(value for t in angles for value in (radius * math.cos(t), radius * math.sin(t)))


def _star(n: int, outer: float, inner: float) -> tuple[float, ...]:
    angles = [math.pi * i / n - math.pi / 2 for i in range(2 * n)]
    radii = [inner if i % 2 else outer for i in range(2 * n)]
    return tuple(
        value for r, t in zip(radii, angles, strict=True) for value in (r * math.cos(t), r * math.sin(t))
    )
