"""Lines of ruled and squared paper, and frames, which nobody drew."""

import numpy as np
from scipy import ndimage

Array = np.ndarray

LIKE = 0.08  # of the range from black to white do the colours of one and the same thing differ at most
RULED = 0.03  # of it does a line stand out from the paper, over the median of a row
THIN = 0.03  # of the picture's height is a ruled line at most
LINES = 3  # of them make ruled paper
WIDE = 0.15  # of the picture's side is a frame at most
MARGIN = 0.08  # of it lies between the edge and a frame that is inset


def cleaned(rgb: Array) -> Array:
    """Return a picture (H, W, 3) in [0, 1] without its frame and without the lines of ruled paper."""
    rgb = without_frame(rgb)
    return without_lines(without_lines(rgb).transpose(1, 0, 2)).transpose(1, 0, 2)


def without_frame(rgb: Array) -> Array:
    """Cut off a frame: a band of one colour along all four sides, at the edge or a little inset.

    What lies inside must have something on it; else the band is the drawing, such as a square.
    """
    side = min(rgb.shape[:2])
    widths = _band(rgb)
    if not 0 < max(widths) < WIDE * side:
        return rgb
    inside = _cut(rgb, widths)
    second = _band(inside)
    if not min(second):
        return rgb
    outer, inner = _ring(rgb), _ring(inside)
    if np.abs(outer - inner).max() < 2 * LIKE:
        return rgb
    if max(widths) <= MARGIN * side and 0 < max(second) < MARGIN * side:
        third = _cut(inside, second)
        if min(_band(third)) and np.abs(_ring(third) - outer).max() < 2 * LIKE:
            inside = third
    return inside if _drawn(inside) else rgb


def without_lines(rgb: Array) -> Array:
    """Take away horizontal lines that run from edge to edge, if there are several, thin and like each other.

    A row's median over its columns is the paper's colour, or on a line the line's: ink covers less than half
    of it. Where ink crosses a line, it is drawn on from the row above to the row below.
    """
    height, width = rgb.shape[:2]
    rows = np.median(rgb, axis=1)
    paper = ndimage.median_filter(rows, (2 * max(2, height // 16) + 1, 1), mode="nearest")
    ruled = np.abs(rows - paper).max(1) > RULED
    edge = max(2, width // 32)
    for ends in (rgb[:, :edge], rgb[:, -edge:]):  # a stroke that was drawn does not reach the edges
        ruled &= np.abs(np.median(ends, axis=1) - paper).max(1) > RULED
    labels, count = ndimage.label(ruled)
    found = [where[0] for where in ndimage.find_objects(labels)]
    if count < LINES or max(w.stop - w.start for w in found) > max(2, THIN * height):
        return rgb
    out = rgb.copy()
    for where in found:
        top, bottom = max(0, where.start - 2), min(height - 1, where.stop + 1)
        share = ((np.arange(top, bottom + 1) - top) / max(1, bottom - top))[:, None, None]
        out[top : bottom + 1] = (1 - share) * rgb[top] + share * rgb[bottom]
    return out


def _band(rgb: Array) -> tuple[int, int, int, int]:
    """Return how many rows and columns at the top, bottom, left and right have the ring's one colour."""
    colour = _ring(rgb)
    same = np.abs(rgb - colour).max(2) < LIKE
    if min(line.mean() for line in (same[0], same[-1], same[:, 0], same[:, -1])) < 0.97:
        return 0, 0, 0, 0
    sides = (same, same[::-1], same.T, same.T[::-1])
    widths = [int((np.append(side.mean(1) >= 0.97, False)).argmin()) for side in sides]
    return widths[0], widths[1], widths[2], widths[3]


def _ring(rgb: Array) -> Array:
    """Return the median colour of the outermost pixels."""
    edges = [rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]
    colour: Array = np.median(np.concatenate(edges), axis=0)
    return colour


def _cut(rgb: Array, widths: tuple[int, int, int, int]) -> Array:
    """Return what lies inside of a band, less the pixel in which both colours mix."""
    top, bottom, left, right = (w + 1 if w else 0 for w in widths)
    height, width = rgb.shape[:2]
    inside = rgb[top : height - bottom, left : width - right]
    return inside if min(inside.shape[:2]) >= 8 else rgb


def _drawn(rgb: Array) -> bool:
    """Return whether something stands out from the colour of the edge, but not nearly everything."""
    away = np.abs(rgb - _ring(rgb)).max(2) > 2 * LIKE
    return 0.002 < away.mean() < 0.7
