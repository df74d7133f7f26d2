import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from metagen.data.user_pictures import read_classes, read_image
from metagen.errors import MetagenError

Array = np.ndarray


def seven(width: int = 200, height: int = 200, pen: int = 16) -> Array:
    """Coverage (H, W) in [0, 1] of a 7: bright at its top right, empty at its bottom right."""
    image = Image.new("L", (width, height))
    corners = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)]
    ImageDraw.Draw(image).line([(x * width, y * height) for x, y in corners], 255, pen)
    return np.asarray(image) / 255


def painted(ink: Array, color: tuple[int, ...], paper: Array | tuple[int, ...]) -> Array:
    return ink[..., None] * np.array(color) + (1 - ink[..., None]) * np.array(paper)


def picture(a: Array) -> Image.Image:
    return Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))


def photo(ink: Array, noise: float) -> Image.Image:
    """Blue ink on yellowish paper, lit from the left."""
    h, w = ink.shape
    y, x = np.mgrid[0:h, 0:w]
    light = (200 - 90 * x / w - 40 * (y / h) ** 2)[..., None] * np.array([1, 0.97, 0.85])
    grain = np.random.default_rng(0).normal(0, noise, (h, w, 3))
    return picture(painted(ink, (40, 40, 90), light) + grain)


def transparent(color: int) -> Image.Image:
    ink = seven()
    return picture(np.concatenate([np.full((*ink.shape, 3), color), 255 * ink[..., None]], -1))


STYLES: dict[str, Callable[[], Image.Image]] = {
    "dark on light": lambda: picture(painted(seven(), (0, 0, 0), (255, 255, 255))),
    "light on dark": lambda: picture(painted(seven(), (255, 255, 255), (0, 0, 0))),
    "faint": lambda: picture(painted(seven(), (150, 150, 150), (180, 180, 180))),
    "red on green of equal luminance": lambda: picture(painted(seven(), (200, 0, 0), (0, 102, 0))),
    "wide": lambda: picture(painted(seven(400, 150), (0, 0, 0), (255, 255, 255))),
    "palette": lambda: picture(painted(seven(), (0, 0, 200), (255, 255, 0))).quantize(8),
    "one bit": lambda: picture(255 - 255 * seven()).convert("1"),
    "16 bit": lambda: Image.fromarray((65535 * (1 - seven())).astype(np.uint16)),
    "12 of 16 bit": lambda: Image.fromarray((4095 * seven()).astype(np.uint16)),
    "transparent black": lambda: transparent(0),
    "transparent white": lambda: transparent(255),
    "hairline": lambda: picture(255 - 255 * seven(600, 600, 1)),
    "hairline in a large picture": lambda: picture(255 - 255 * seven(3000, 2000, 2)),
    "photo": lambda: photo(seven(500, 600, 10), 6),
    "grainy photo": lambda: photo(seven(500, 600, 14), 16),
    "tiny": lambda: picture(255 * seven(12, 12, 2)),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_becomes_bright_ink_in_mnists_box(tmp_path: Path, style: str) -> None:
    STYLES[style]().save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png").astype(int)
    assert got.shape == (28, 28)
    assert got.max() == 255
    assert (got == 0).mean() > 0.5
    rows, columns = np.flatnonzero((got > 60).any(1)), np.flatnonzero((got > 60).any(0))
    assert 17 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    box = got[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    third = box.shape[0] // 3
    # a 7: a bar at the top that no stroke interrupts, nothing at the bottom right
    assert (box[:4].max(0) > 120).all()
    assert (box.max(1) > 120).all()
    assert box[2 * third :, box.shape[1] * 3 // 4 :].max() < 60
    assert 1.2 <= (box[2 * third : -2] / 255).sum(1).mean() <= 6


def test_jpeg_artefacts_leave_no_ink(tmp_path: Path) -> None:
    image = STYLES["red on green of equal luminance"]()
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.jpg", quality=25)
    clean, lossy = (read_image(tmp_path / f"a.{kind}").astype(int) for kind in ("png", "jpg"))
    assert np.abs(clean - lossy).mean() < 10
    assert lossy[ndimage.maximum_filter(clean, 5) == 0].max() == 0


@pytest.mark.parametrize("noise", [2, 8, 12, 16])
@pytest.mark.parametrize("side", [100, 500, 900])
def test_blank_paper_is_no_image_however_grainy(tmp_path: Path, noise: float, side: int) -> None:
    photo(np.zeros((side, side)), noise).save(tmp_path / "a.png")
    with pytest.raises(MetagenError, match="blank"):
        read_image(tmp_path / "a.png")


def test_dust_does_not_widen_the_box(tmp_path: Path) -> None:
    ink = seven()
    STYLES["dark on light"]().save(tmp_path / "clean.png")
    ink[5, 5] = ink[190, 8] = ink[100, 195] = 1
    picture(255 - 255 * ink).save(tmp_path / "dusty.png")
    clean, dusty = (read_image(tmp_path / f"{n}.png").astype(int) for n in ("clean", "dusty"))
    assert np.abs(clean - dusty).max() <= 1


def test_a_picture_of_the_right_size_stays_as_it_is(tmp_path: Path) -> None:
    ink = np.zeros((28, 28), np.uint8)
    ink[3:10, 20:23] = 255
    ink[10, 20:23] = 90
    for name, a in (("light", ink), ("dark", 255 - ink)):
        Image.fromarray(a).save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), ink)
    moved = read_image(tmp_path / "light.png", crop=True)
    assert np.flatnonzero((moved > 60).any(1))[[0, -1]].tolist() == pytest.approx([4, 23], abs=1)
    assert read_image(tmp_path / "light.png", size=20).shape == (20, 20)


def test_without_crop_the_place_is_kept(tmp_path: Path) -> None:
    ink = np.zeros((280, 140))
    ink[20:80, 90:120] = 1
    picture(255 * ink).save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png", crop=False) > 127
    assert np.flatnonzero(got.any(1))[[0, -1]].tolist() == [2, 7]
    assert np.flatnonzero(got.any(0))[[0, -1]].tolist() == [16, 18]


def test_a_cameras_rotation_is_undone(tmp_path: Path) -> None:
    upright = STYLES["dark on light"]()
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png"))


def folder(root: Path, classes: dict[str, list[str]]) -> Path:
    for name, files in classes.items():
        (root / name).mkdir(parents=True)
        for file in files:
            STYLES["tiny"]().save(root / name / file)
    return root


def test_classes_and_files_in_natural_order_without_junk(tmp_path: Path) -> None:
    files = ["1.png", "10.png", "2.png"]
    root = folder(tmp_path / "d", {"class 10": files, "class 9": files, "Class 1": files})
    for junk in (".DS_Store", "class 9/Thumbs.db", "class 9/.hidden.png", "desktop.ini"):
        (root / junk).write_text("junk")
    mark = np.zeros((28, 28), np.uint8)
    mark[4:24, 10:13] = 255
    Image.fromarray(mark).save(root / "class 9" / "10.png")
    images, names = read_classes(root)
    assert (images.shape, images.dtype) == ((3, 3, 28, 28), np.uint8)
    assert names == ["Class 1", "class 9", "class 10"]
    assert np.array_equal(images[1, 2], mark)


def damage(root: Path, how: str) -> None:
    a = root / "a"
    whole = (a / "1.png").read_bytes()
    if how == "missing":
        root.rename(root.with_name("elsewhere"))
    elif how == "a file":
        root.rename(root.with_name("elsewhere"))
        root.write_text("")
    elif how == "loose":
        (root / "5.png").write_bytes(whole)
    elif how == "loose text":
        (root / "readme.txt").write_text("drawn on Monday")
    elif how == "link":
        (a / "1.png").unlink()
        (a / "1.png").symlink_to("1.png")
    elif how == "empty":
        root.rename(root.with_name("elsewhere"))
        root.mkdir()
    elif how == "empty class":
        (root / "c").mkdir()
    elif how == "unequal":
        (a / "2.png").unlink()
    elif how == "truncated":
        STYLES["photo"]().save(a / "1.png")
        (a / "1.png").write_bytes((a / "1.png").read_bytes()[:5000])
    elif how == "text":
        (a / "1.png").write_text("no picture")
    elif how == "no bytes":
        (a / "1.png").write_bytes(b"")
    elif how == "blank":
        Image.new("RGB", (50, 50), "white").save(a / "1.png")
    elif how == "blank paper":
        photo(np.zeros((300, 300)), 8).save(a / "1.png")
    elif how == "one pixel":
        Image.new("L", (1, 1)).save(a / "1.png")
    elif how == "nested":
        (a / "1.png").unlink()
        (a / "deeper").mkdir()
    elif how in ("bomb", "large"):
        side = 200_000 if how == "bomb" else 11_000
        head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        (a / "1.png").write_bytes(
            b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]
        )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "no folder"),
        ("a file", "must be a folder"),
        ("loose", r"5\.png lies directly in it: move it to .*CLASS/5\.png"),
        ("loose text", r"readme\.txt lies directly in it: it is no image, remove it"),
        ("link", r"1\.png is a link to nothing: remove it"),
        ("empty", "is empty"),
        ("empty class", r"c holds no images"),
        ("unequal", "a: 1, b: 2"),
        ("truncated", r"1\.png cannot be read: "),
        ("text", r"1\.png is not an image"),
        ("no bytes", r"1\.png is not an image"),
        ("blank", r"1\.png is blank"),
        ("blank paper", r"1\.png is blank"),
        ("one pixel", r"1\.png is blank"),
        ("nested", "deeper is a folder"),
        ("bomb", r"1\.png has more than"),
        ("large", r"1\.png has 11000 x 11000 pixels"),
    ],
)
def test_bad_folders_are_one_line_errors(tmp_path: Path, how: str, says: str) -> None:
    root = folder(tmp_path / "d", {"a": ["1.png", "2.png"], "b": ["1.png", "2.png"]})
    damage(root, how)
    with pytest.raises(MetagenError, match=says) as caught:
        read_classes(root)
    assert "\n" not in str(caught.value)


def test_class_folders_with_a_leading_dot_are_named_in_a_warning(tmp_path: Path, caplog) -> None:
    root = folder(tmp_path / "d", {name: ["1.png"] for name in ("b", ".a", ".thumbnails", "__MACOSX")})
    (root / ".git").mkdir()
    assert read_classes(root)[1] == ["b"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}: left out, as names that begin with a dot are: .a"
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.7), (0, 255), (0, 90), (-1, 1), (1e4, 6e4)])
def test_a_picture_of_fractions_is_read_by_its_range(tmp_path: Path, low: float, high: float) -> None:
    Image.fromarray((low + (high - low) * seven()).astype(np.float32)).save(tmp_path / "a.tif")
    STYLES["light on dark"]().save(tmp_path / "a.png")
    one, other = (read_image(tmp_path / name).astype(int) for name in ("a.tif", "a.png"))
    assert np.abs(one - other).max() <= 3


def test_a_file_that_is_no_picture_is_named_and_not_counted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(255 * np.eye(28, dtype=np.uint8)).save(tmp_path / name / "1.png")
    (tmp_path / "a" / "notes.txt").write_text("drawn on Monday")
    with pytest.raises(MetagenError, match=r"notes\.txt is not an image"):
        read_classes(tmp_path)
