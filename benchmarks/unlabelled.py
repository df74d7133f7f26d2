"""A page for sceptics: twenty characters, drawn by people and by generators, without saying which is which.

    python benchmarks/unlabelled.py WARP OURS --out unlabelled.png

Each row opens with the one image that was given; then follow, in an order that changes from row to row, four
drawings each by other people and by each run, of the first test episode of ``experiment=omniglot_samples``.
The key is printed: which column is whose. Black and white, so that shades of grey do not tell.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from PIL import Image

from metagen.data.omniglot import Omniglot
from metagen.errors import MetagenError
from metagen.report.pictures import write_png

SHOWN, SCALE, GAP = 4, 2, 6


def drawn(run: Path) -> dict[str, np.ndarray]:
    """Return ``support`` (N, K, H, W), ``samples`` (N, M, H, W), ``classes`` (N,) of the first episode."""
    with np.load(run / "samples.npz") as file:
        return dict(file)


def people(classes: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return drawings of ``classes`` by other people than those who drew ``support``, (N, SHOWN, H, W)."""
    bank = Omniglot(os.environ.get("METAGEN_DATA", "data")).load(SHOWN + 1)
    found = []
    for name, given in zip(classes, support, strict=True):
        images = bank.images[bank.labels == bank.names.index(str(name))].numpy().reshape(-1, *given.shape[1:])
        others = [image for image in images if not any((image == one).all() for one in given)]
        found.append(np.stack(others[:SHOWN]))
    return np.stack(found)


def page(support: np.ndarray, sources: list[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture, ink = 0, and for each row the order of the sources, (N, len(sources))."""
    orders = np.stack(
        [np.random.default_rng((seed, row)).permutation(len(sources)) for row in range(len(support))]
    )
    rows = []
    for row, order in enumerate(orders):
        groups = [support[row, :1], *(sources[i][row, :SHOWN] for i in order)]
        rows.append(np.concatenate([_strip(group) for group in groups], 1))
    return np.concatenate(rows), orders


def _strip(images: np.ndarray) -> np.ndarray:
    tiles = [
        np.pad(np.where(image > 127, 0, 255).astype(np.uint8), 1, constant_values=235) for image in images
    ]
    return np.pad(np.concatenate(tiles, 1), ((0, 0), (0, GAP)), constant_values=255)


def main() -> None:
    """Read the command line, draw the page, print the key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("unlabelled.png"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = [drawn(run) for run in args.runs]
    if any((one["support"] != found[0]["support"]).any() for one in found[1:]):
        raise MetagenError("the runs were tested on different episodes: give those of the same ones")
    support, classes = found[0]["support"], found[0]["classes"]
    names = ["people", *(run.name for run in args.runs)]
    picture, orders = page(support, [people(classes, support), *(one["samples"] for one in found)], args.seed)
    image = Image.fromarray(picture)
    write_png(args.out, image.resize((SCALE * image.width, SCALE * image.height), Image.Resampling.NEAREST))
    for row, order in enumerate(orders, 1):
        print(f"{row:2d}  {', '.join(names[i] for i in order)}")


if __name__ == "__main__":
    main()
