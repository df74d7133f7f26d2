"""Ruled and squared paper, and frames, beside the same drawing on plain paper."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from metagen.data.paper import cleaned
from metagen.data.user_pictures import read_image
from metagen.errors import MetagenError

PAPER, INK = (250, 248, 240), (30, 30, 60)


def seven(image, ink=INK):
    w, h = image.size
    corners = [(0.3 * w, 0.2 * h), (0.7 * w, 0.2 * h), (0.45 * w, 0.8 * h)]
    ImageDraw.Draw(image).line(corners, ink, w // 18, joint="curve")
    return image


def sheet(paper=PAPER, size=400):
    return Image.new("RGB", (size, size), paper)


def ruled(image, step=40, colour=(150, 170, 220), width=2, squared=False, margin=False):
    brush, (w, h) = ImageDraw.Draw(image), image.size
    for y in range(step // 2, h, step):
        brush.line([(0, y), (w, y)], colour, width)
    for x in range(step // 2, w, step) if squared else ():
        brush.line([(x, 0), (x, h)], colour, width)
    if margin:
        brush.line([(w // 8, 0), (w // 8, h)], (220, 120, 120), width)
    return image


def framed(image, inset=0, width=12, colour=(0, 0, 0)):
    w, h = image.size
    ImageDraw.Draw(image).rectangle((inset, inset, w - 1 - inset, h - 1 - inset), outline=colour, width=width)
    return image


def grainy(image):
    noise = np.random.default_rng(0).normal(0, 5, (*image.size, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


CASES = {
    "ruled": lambda: seven(ruled(sheet())),
    "ruled darkly": lambda: seven(ruled(sheet(), colour=(100, 100, 140), width=3)),
    "ruled, a photo": lambda: grainy(seven(ruled(sheet()))),
    "ruled with a margin": lambda: seven(ruled(sheet(), margin=True)),
    "squared": lambda: seven(ruled(sheet(), 30, squared=True)),
    "framed": lambda: framed(seven(sheet())),
    "framed thickly": lambda: framed(seven(sheet()), width=40),
    "framed in colour": lambda: framed(seven(sheet()), width=20, colour=(180, 40, 40)),
    "frame inset": lambda: framed(seven(sheet()), inset=15, width=6),
    "light on dark, framed": lambda: framed(seven(sheet((20, 20, 20)), (240, 240, 240)), colour=(240,) * 3),
}


@pytest.mark.parametrize("case", CASES)
def test_paper_leaves_nothing_behind(tmp_path, case):
    seven(sheet()).save(tmp_path / "plain.png")
    CASES[case]().save(tmp_path / "a.png")
    plain, found = (read_image(tmp_path / f"{name}.png").astype(int) for name in ("plain", "a"))
    assert np.abs(plain - found).mean() < 2


def drawn(draw):
    image = sheet()
    draw(ImageDraw.Draw(image))
    return image


KEPT = {
    "a square": lambda d: d.rectangle((30, 30, 370, 370), outline=INK, width=24),
    "a full square": lambda d: d.rectangle((40, 40, 360, 360), fill=INK),
    "three strokes": lambda d: [d.line([(40, y), (360, y)], INK, 8) for y in (100, 200, 300)],
    "a cross": lambda d: [d.line([(0, 200), (400, 200)], INK, 20), d.line([(200, 0), (200, 400)], INK, 20)],
}


@pytest.mark.parametrize("case", KEPT)
def test_what_was_drawn_stays(case):
    rgb = np.asarray(drawn(KEPT[case]), np.float64) / 255
    assert np.array_equal(cleaned(rgb), rgb)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "bmp"])
def test_other_kinds_are_read(tmp_path, suffix):
    seven(sheet()).save(tmp_path / "a.png")
    seven(sheet()).save(tmp_path / f"a.{suffix}")
    plain, found = (read_image(tmp_path / f"a.{kind}").astype(int) for kind in ("png", suffix))
    assert np.abs(plain - found).mean() < 8


def test_heic_is_refused_by_name(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(MetagenError, match="is a HEIC file: save it as PNG or JPEG"):
        read_image(tmp_path / "a.HEIC")
