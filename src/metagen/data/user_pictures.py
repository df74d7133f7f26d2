"""The user's own pictures as support images: any size, colour and background, made to look like data.

One file holds both halves, reading folders and finding the ink, because neither is of use alone.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from metagen.data import paper
from metagen.data.class_folders import class_folders, entries
from metagen.data.photographs import eight_bits, no_file
from metagen.errors import MetagenError
from metagen.reading import opened

Array = np.ndarray

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
UNREAD = (".heic", ".heif", ".avif", ".svg", ".pdf")
"""Pictures of kinds that are not read, which an error names."""
MAX_PIXELS = 100_000_000
MAX_BYTES = 2**28
WORK_SIDE = 1000  # larger pictures are reduced to it first: strokes are found at this scale
INK_SIDE = 20 / 28  # of the picture's side is the ink's longer side, as in MNIST
STROKE = 2 / 28  # of the picture's side is the thinnest stroke: a hair's line would fade in the resize
FAINTEST = 0.06  # of the range from black to white is the faintest ink
EDGE = 0.25  # of the full ink is what still counts as a stroke's body
GRAIN = 12  # pixels is the largest speck of a noisy picture that cannot be a stroke


def read_classes(
    folder: str | Path,
    size: int = 28,
    crop: bool | None = None,
    read: Callable[[Path], np.ndarray] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Read ``folder/CLASS/IMAGE`` as support images.

    Args:
        folder: holds one folder for each of N classes with K image files each.
        size: side of the result in pixels.
        crop: cut out the ink and centre it with MNIST's margin; by default only where a picture is
            not ``size`` x ``size`` already.
        read: reads one file in place of :func:`read_image`, for images that are no drawings.

    Returns:
        Images uint8 (N, K, size, size), ink = 255 on 0 (or what ``read`` returns), and the N class names.
        Classes and files are in natural order (``2`` before ``10``).

    Raises:
        MetagenError: no such folder, no class folders, an empty one, unequal counts, a file that is
            no picture or cannot be read, a picture that is too large or shows nothing.
    """
    root = Path(folder)
    files = {path.name: entries(path) for path in class_folders(root)}
    for name, paths in files.items():
        if not paths:
            raise MetagenError(f"class folder {root / name} holds no images")
    # First, so that a file that is no picture is named and not counted.
    one = read or (lambda path: read_image(path, size, crop))
    images = [[one(path) for path in paths] for paths in files.values()]
    counts = {name: len(paths) for name, paths in files.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise MetagenError(f"every class in {root} needs the same number of images, not {text}")
    return np.stack([np.stack(row) for row in images]), list(files)


def read_image(
    path: str | Path | Image.Image,
    size: int = 28,
    crop: bool | None = None,
    name: str = "",
    limit: int = MAX_PIXELS,
) -> np.ndarray:
    """Read one picture, a file or a PIL image, as uint8 (size, size), ink = 255 on 0; errors as above.

    ``name`` is what errors call it instead of its path, ``limit`` how many pixels it may have.
    """
    name = name or ("the image" if isinstance(path, Image.Image) else str(path))
    if isinstance(path, Image.Image):
        layers = [np.asarray(layer, np.float64) for layer in _layers(ImageOps.exif_transpose(path))]
    else:
        layers = _load(Path(path), name, limit)
    crop = layers[0].shape[:2] != (size, size) if crop is None else crop
    # a transparent drawing may be meant for paper or for a dark screen: only one of them shows it
    for rgb in layers:
        ink = _ink(paper.cleaned(rgb) if crop else rgb)
        if ink is not None:
            return _place(ink, size, crop)
    raise MetagenError(f"{name} is blank: no ink stands out from its background")


def frame(ink: np.ndarray, size: int = 28) -> np.ndarray:
    """Cut ink (H, W), coverage in [0, 1], out of its canvas and centre it as :func:`read_image` does.

    Returns:
        uint8 (size, size), ink = 255 on 0.

    Raises:
        MetagenError: there is no ink.
    """
    if not (ink > EDGE).any():
        raise MetagenError("there is no ink to frame: draw something first")
    return _place(np.asarray(ink, np.float64), size, crop=True)


def _load(path: Path, name: str, limit: int) -> list[Array]:
    """Decode a picture to float (H, W, 3) in [0, 1]; one with transparency on white and on black."""
    if path.is_dir():
        raise MetagenError(f"{name} is a folder, but only image files may lie in a class folder")
    if not path.is_file():
        raise MetagenError(f"{name} is {no_file(path)}: remove it")
    if path.stat().st_size > MAX_BYTES:
        raise MetagenError(f"{name} has more than {MAX_BYTES:,} bytes: make it smaller")
    try:
        with opened(path, MAX_BYTES) as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > limit:
                raise MetagenError(
                    f"{name} has {image.width} x {image.height} pixels, more than {limit:,}: make it smaller"
                )
            return [np.asarray(layer, np.float64) for layer in _layers(ImageOps.exif_transpose(image))]
    except Image.DecompressionBombError as error:
        raise MetagenError(f"{name} has more than {limit:,} pixels: make it smaller") from error
    except Image.UnidentifiedImageError as error:
        kind = path.suffix.lower()
        if kind in UNREAD:
            raise MetagenError(f"{name} is a {kind[1:].upper()} file: save it as PNG or JPEG") from error
        raise MetagenError(f"{name} is not an image of a known kind ({', '.join(FORMATS)})") from error
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines() or ["damaged file"]
        raise MetagenError(f"{name} cannot be read: {reason[0]}") from error


def _layers(image: Image.Image) -> list[Array]:
    image = eight_bits(image)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        papers = [Image.new("RGBA", image.size, color) for color in ("white", "black")]
        flat = [Image.alpha_composite(paper, rgba).convert("RGB") for paper in papers]
    else:
        flat = [image.convert("RGB")]
    for layer in flat:
        layer.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.BOX)
    return [np.asarray(layer, np.float64) / 255 for layer in flat]


def _ink(rgb: Array) -> Array | None:
    """Separate ink from background: float (H, W) in [0, 1], or None where nothing stands out."""
    residual = rgb - _background(rgb)
    flat = residual.reshape(-1, 3)
    # the axis of the colours' spread also tells red from green of the same brightness
    axis = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    p = residual @ axis
    # few pixels are ink and they are far from the background: the long tail is theirs
    p = p if (p**3).sum() >= 0 else -p
    grainy = _noise(p) > FAINTEST
    if grainy:
        p = ndimage.gaussian_filter(p, min(1, max(p.shape) / 400))
    noise = _noise(p)
    clear = p[p > max(noise, FAINTEST)]
    if clear.size == 0:
        return None
    full = np.quantile(clear[clear >= _otsu(clear)], 0.75)
    low = min(noise, full / 2)
    # a stroke is a connected region with a clear core: reduced hairlines are faint in places
    labels, count = ndimage.label(p > max(noise, EDGE * full), np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    areas[np.setdiff1d(labels, labels[p > full / 2])] = 0
    if grainy and areas.max() < GRAIN:
        return None
    strong = (areas >= 0.005 * areas.sum())[labels] & (labels > 0)  # the rest is dust
    # soft edges stay, what is faint and far from any stroke does not
    near = ndimage.binary_dilation(strong, np.ones((3, 3)), iterations=max(2, max(p.shape) // 200))
    return np.where(near, np.clip((p - low) / (full - low), 0, 1), 0)


def _background(rgb: Array) -> Array:
    """Colour of the paper at each pixel: constant, or a smooth surface where the border is uneven.

    The surface is quadratic in x and y, fitted by least absolute deviations (iteratively reweighted
    least squares), which ink cannot bend as long as most pixels are paper.
    """
    h, w = rgb.shape[:2]
    edge = max(1, min(h, w) // 40)
    inner = np.zeros((h, w), bool)
    inner[edge : h - edge, edge : w - edge] = True
    median = np.median(rgb[~inner], axis=0)
    if np.mean(np.abs(rgb[~inner] - median).max(1) < 0.04) > 0.85 or min(h, w) < 8:
        return np.broadcast_to(median, rgb.shape)
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1)
    step = max(1, max(h, w) // 64)
    a, b = terms[::step, ::step].reshape(-1, 6), rgb[::step, ::step].reshape(-1, 3)
    weight = np.where(inner[::step, ::step].ravel(), 0.1, 1.0)
    for _ in range(30):
        root = np.sqrt(weight)[:, None]
        fit = np.linalg.lstsq(a * root, b * root, rcond=None)[0]
        weight = 1 / (np.abs(b - a @ fit).max(1) + 0.01)
    return terms @ fit


def _noise(p: Array) -> float:
    """Five standard deviations of the paper's grain, by the median absolute deviation."""
    return 5 * 1.4826 * float(np.median(np.abs(p[p <= _otsu(p)])))


def _otsu(values: Array) -> float:
    """Threshold that maximises the variance between two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 64)
    centre = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centre)
    n0, n1 = below[:-1], below[-1] - below[:-1]
    if values.min() == values.max():
        return float(values.min())
    with np.errstate(divide="ignore", invalid="ignore"):
        between = n0 * n1 * (mass[:-1] / n0 - (mass[-1] - mass[:-1]) / n1) ** 2
    return float(edges[1 + np.nanargmax(between)])


def _place(ink: Array, size: int, crop: bool) -> Array:
    """Put the ink on a square of ``size`` pixels."""
    if not crop and ink.shape == (size, size):
        return np.rint(255 * ink).astype(np.uint8)
    side = INK_SIDE * size if crop else float(size)
    if crop:
        rows, columns = (np.flatnonzero((ink > EDGE).any(axis)) for axis in (1, 0))
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = side / max(ink.shape)
    ink = _thickened(ink, STROKE * size / scale)
    scale = min(scale, side / max(ink.shape))
    h, w = (max(1, round(scale * n)) for n in ink.shape)
    image = Image.fromarray(ink.astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC)
    small = np.clip(np.asarray(image), 0, 1)
    small = np.clip(small / np.quantile(small[small > 0.25 * small.max()], 0.75), 0, 1)
    out = np.zeros((size, size))
    # MNIST centres the mass, not the box; the margin bounds how far
    centre = ndimage.center_of_mass(small) if crop else ((h - 1) / 2, (w - 1) / 2)
    top, left = (
        int(np.clip(round((size - 1) / 2 - c), 0, size - n)) for c, n in zip(centre, (h, w), strict=True)
    )
    out[top : top + h, left : left + w] = small
    return np.rint(255 * out).astype(np.uint8)


def _thickened(ink: Array, width: float) -> Array:
    """Widen strokes thinner than ``width`` pixels to it, on a canvas that grows by as much."""
    strong = np.pad(ink > EDGE, 1)
    # the mean distance from a stroke's edge is a quarter of its width, plus the pixel grid's half
    now = 4 * (ndimage.distance_transform_edt(strong)[strong].mean() - 0.5)
    more = (width - now) / 2
    if more < 0.5:
        return ink
    margin = int(np.ceil(more))
    ink = np.pad(ink, margin)
    distance = ndimage.distance_transform_edt(ink <= EDGE)
    return np.maximum(ink, np.clip(more + 0.5 - distance, 0, 1))
