"""Draw a folder of symbols, one folder for each, to try data of your own with.

python examples/draw_symbols.py FOLDER [IMAGES OF EACH]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE, PEN = 128, 9


def star(corners: int, step: int) -> np.ndarray:
    """Return the path through every ``step``-th of so many corners, (P, 2) in [-1, 1]."""
    angle = 2 * np.pi * step * np.arange(corners + 1) / corners - np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def spiral(turns: float) -> np.ndarray:
    """Return a path that winds outwards."""
    angle = np.linspace(0, 2 * np.pi * turns, 60)
    return (angle / angle[-1])[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)


def zigzag(teeth: int) -> np.ndarray:
    """Return a path from left to right that goes up and down."""
    x = np.linspace(-1, 1, 2 * teeth + 1)
    return np.stack([x, np.where(np.arange(len(x)) % 2, -0.7, 0.7)], -1)


SYMBOLS = {
    **{f"polygon_{n}": star(n, 1) for n in range(3, 9)},
    **{f"star_{n}_{k}": star(n, k) for n, k in ((5, 2), (7, 2), (7, 3), (8, 3), (9, 2), (9, 4))},
    **{f"spiral_{n}": spiral(n) for n in (1, 2, 3)},
    **{f"zigzag_{n}": zigzag(n) for n in (1, 2, 3, 4)},
}


def drawn(path: np.ndarray, hand: np.random.Generator) -> Image.Image:
    """Draw a path as a hand would: turned, stretched and shaken a little."""
    turn, stretch = hand.normal(0, 0.15), hand.normal(1, 0.1, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    points = path * stretch @ np.array([[cos, sin], [-sin, cos]]) + hand.normal(0, 0.03, path.shape)
    image = Image.new("L", (SIDE, SIDE), 255)
    corners = [(float(x), float(y)) for x, y in SIDE / 2 + 0.36 * SIDE * points]
    ImageDraw.Draw(image).line(corners, fill=0, width=PEN, joint="curve")
    return image


def main(folder: str, images: int) -> None:
    """Write the pictures: ``FOLDER/star_5_2/00.png`` and so on."""
    hand = np.random.default_rng(0)
    for name, path in SYMBOLS.items():
        own = Path(folder, name)
        own.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            drawn(path, hand).save(own / f"{number:02}.png")
    sys.stdout.write(f"{len(SYMBOLS)} symbols, {images} images of each, in {folder}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("images", type=int, nargs="?", default=30, help="of each (default: 30)")
    main(**vars(parser.parse_args()))
