"""A folder of classes as others lay them out, with what is wrong in such folders."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from metagen.data.datamodule import EpisodeData
from metagen.data.folder import Folder
from metagen.data.split import Split
from metagen.data.task import FewShot
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]
pytestmark = pytest.mark.usefixtures("cache")
COLOURS = {"a": (200, 30, 30), "b": (30, 200, 30), "c": (30, 30, 200), "d": (200, 200, 30)}


def paint(path, colour=(10, 20, 30), size=(20, 20), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


def draw(path):
    drawing = np.full((50, 50), 255, np.uint8)
    drawing[10:40, 20:25] = 0
    Image.fromarray(drawing).save(path)


def flat(root, classes="abcd", images=4, suffix="png"):
    for name in classes:
        for i in range(images):
            paint(root / name / f"{i}.{suffix}", COLOURS[name[-1]])
    return root


def data(root, **options):
    return Folder(str(root), size=16, **options)


def message(load):
    with pytest.raises(MetagenError) as error:
        load()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_flat(tmp_path):
    bank = data(flat(tmp_path / "my shapes")).load()
    assert (bank.name, bank.names) == ("my_shapes", ("a", "b", "c", "d"))
    assert bank.images.shape == (16, 3, 16, 16)
    assert [tuple(bank.images[4 * i, :, 3, 3].tolist()) for i in range(4)] == list(COLOURS.values())
    assert not bank.held.any()


def test_nested_classes_are_their_paths(tmp_path):
    flat(tmp_path / "x", "ab")
    flat(tmp_path / "y" / "z", "ac")
    assert data(tmp_path).load().names == ("x/a", "x/b", "y/z/a", "y/z/c")


@pytest.mark.parametrize("val", ["val", "valid", "validation", None])
def test_train_val_test_are_the_split(tmp_path, val):
    flat(tmp_path / "train", "ab")
    flat(tmp_path / "test", "d")
    if val:
        flat(tmp_path / val, "c")
    folder = data(tmp_path)
    bank = folder.load()
    assert bank.names == (("a", "b", "c", "d") if val else ("a", "b", "d"))
    assert not bank.held.any()
    assert folder.class_split(bank) == Split(("a", "b"), ("c",) if val else (), ("d",))


def test_the_same_classes_on_both_sides_are_held_images(tmp_path):
    flat(tmp_path / "train", "abcd", 5)
    flat(tmp_path / "test", "abcd", 2)
    folder = data(tmp_path, split=save_split(tmp_path))
    bank = folder.load()
    assert bank.counts.tolist() == [7] * 4
    assert bank.held.reshape(4, 7).tolist() == [[False] * 5 + [True] * 2] * 4
    assert folder.class_split(bank).test == ("d",)


def save_split(folder):
    path = folder / "split.json"
    path.write_text('{"train": ["a", "b"], "val": ["c"], "test": ["d"]}')
    return str(path)


def test_some_of_the_classes_on_both_sides_are_refused(tmp_path):
    flat(tmp_path / "train", "ab")
    flat(tmp_path / "test", "bc")
    assert "b are in train and in val or test" in message(data(tmp_path).load)


def test_shares_and_a_file(tmp_path):
    names = [f"{i}{c}" for i in range(10) for c in "abcd"]
    folder = data(flat(tmp_path / "d", names, 2))
    bank = folder.load()
    assert folder.class_split(bank) == Split.by_shares(bank.names, (0.7, 0.1, 0.2))
    chosen = data(tmp_path / "d", split="0.5/0/0.5").class_split(bank)
    assert chosen.val == ()
    few = data(flat(tmp_path / "few", "ab"))
    assert "task.test_classes=['b']" in message(lambda: few.class_split(few.load()))


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "PNG"])
def test_every_kind_of_file(tmp_path, suffix):
    bank = data(flat(tmp_path, "abc", suffix=suffix)).load()
    found = bank.images[::4, :, 8, 8].int()
    assert (found - torch.tensor([COLOURS[c] for c in "abc"])).abs().max() <= 6


def test_any_size_is_cropped_or_stretched(tmp_path):
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, :40] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(image).save(tmp_path / "a" / "1.png")
    assert data(tmp_path).load().images.max() == 0, "the middle is black"
    stretched = data(tmp_path, fit="stretch").load().images[0, 0].float()
    assert stretched[:, :4].mean() > 250
    assert stretched[:, 7:].mean() < 5


def test_rotation_and_alpha_are_honoured(tmp_path):
    half = Image.new("RGB", (32, 32))
    half.paste((255, 255, 255), (0, 0, 32, 16))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "a").mkdir()
    half.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a" / "1.jpg", exif=exif, quality=95)
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "a" / "2.png")
    Image.new("L", (32, 32), 77).save(tmp_path / "a" / "3.png")
    Image.fromarray(np.full((32, 32), 65535, np.uint16)).save(tmp_path / "a" / "4.png")
    first, clear, grey, _ = data(tmp_path).load().images.float()
    assert first[:, :6].mean() > 240
    assert first[:, 10:].mean() < 15
    assert (clear == 255).all()
    assert (grey == 77).all()


def test_grey_and_ink(tmp_path):
    flat(tmp_path, "ab")
    assert data(tmp_path, channels=1).load().images.shape == (8, 1, 16, 16)
    for path in tmp_path.glob("*/*.png"):
        draw(path)
    ink = data(tmp_path, channels=1, ink=True).load().images
    assert ink[0, 0, 8, 8] > 200
    assert ink[0, 0, 0, 0] == 0
    assert "set data.channels=1" in message(lambda: data(tmp_path, ink=True))


def broken(root):
    flat(root, "abc", 4)
    (root / "a" / "9.png").write_text("no picture")
    (root / "b" / "9.jpg").write_bytes(b"")
    whole = (root / "c" / "0.png").read_bytes()
    (root / "c" / "9.png").write_bytes(whole[:40])
    (root / "c" / "8.heic").write_bytes(b"ftypheic")
    flat(root, ["d"], 2)
    (root / "a" / "notes.txt").write_text("is no image and does not matter")
    return root


def test_all_that_is_wrong_is_said_in_one_message(tmp_path):
    text = message(lambda: data(broken(tmp_path)).load(3))
    assert "4 files cannot be read: " in text
    for part in ("a/9.png (no picture", "b/9.jpg (", "c/9.png (", "c/8.heic (a HEIC file; save it as PNG"):
        assert part in text
    assert "1 classes have fewer than 3 images: d (2)" in text
    assert "data.skip_bad=true" in text


def test_skip_bad_goes_on_without(tmp_path, caplog):
    folder = data(broken(tmp_path), skip_bad=True, split=".9/0/.1")
    for _ in range(2):
        bank = folder.load(3)
        assert bank.counts.tolist() == [4, 4, 4, 2]
        assert "d (2)" in caplog.text
        caplog.clear()
    named = Folder(str(tmp_path), 16, "1/0/0", skip_bad=True)
    named.load(3)
    with pytest.raises(MetagenError, match="leaves 3 of 3 classes to train on and 0 to test on"):
        named.class_split(bank)


@pytest.mark.parametrize("ink", [False, True])
@pytest.mark.parametrize("target", ["nowhere", "x.png"])
def test_a_link_to_nothing_is_a_bad_file(tmp_path, target, ink, caplog):
    flat(tmp_path, "ab", 2)
    for path in tmp_path.glob("*/*.png"):
        draw(path)
    (tmp_path / "b" / "x.png").symlink_to(target)
    kind = {"ink": ink, "channels": 1}
    says = f"b/x.png ({'it is ' if ink else ''}a link to nothing"
    assert says in message(data(tmp_path, **kind).load)
    assert data(tmp_path, skip_bad=True, **kind).load().counts.tolist() == [2, 2]
    assert says in caplog.text


def test_what_is_wrong_with_drawings_reads_well(tmp_path):
    for path in broken(tmp_path).glob("*/?.png"):
        if path.stem != "9":
            draw(path)
    draw(tmp_path / "c" / "7.bmp")
    os.truncate(tmp_path / "c" / "7.bmp", 2000)
    flat(tmp_path, ["e-a"], 1)  # an even colour
    os.mkfifo(tmp_path / "e-a" / "pipe.png")
    text = message(data(tmp_path, ink=True, channels=1).load)
    for part in (
        "a/9.png (it is not an image of a known kind (PNG, ",
        "c/8.heic (it is a HEIC file: save it as PNG or JPEG)",
        "c/7.bmp (it cannot be read: image file is truncated",
        "e-a/0.png (it is blank: ",
        "e-a/pipe.png (it is no regular file: remove it)",
    ):
        assert part in text


def test_where_all_classes_are_too_small_none_is_left(tmp_path, caplog):
    flat(tmp_path, "ab", 2)
    for skip_bad in (False, True):
        for _ in range(2):
            text = message(lambda skip=skip_bad: data(tmp_path, skip_bad=skip).load(3))
            assert "2 classes have fewer than 3 images: a (2), b (2); no class is left: add images" in text
            assert "skip_bad" not in text
    assert not caplog.records


def test_what_is_skipped_is_said_once(tmp_path, caplog):
    folder = data(broken(tmp_path), skip_bad=True)
    for _ in range(2):
        folder.load(3)
        assert [record.getMessage().count("d (2)") for record in caplog.records] == [1]
        caplog.clear()


def test_few_classes_are_split_so_that_no_side_is_empty(tmp_path):
    flat(tmp_path, [f"{i}a" for i in range(12)], 3)
    flat(tmp_path, "bcd", 2)
    folder = data(tmp_path, skip_bad=True)
    split = folder.class_split(folder.load(3))
    assert sorted((*split.train, *split.val, *split.test)) == sorted(f"{i}a" for i in range(12))
    assert split.train
    assert split.val
    assert split.test


def test_a_class_with_a_leading_dot_is_named_in_a_warning(tmp_path, caplog):
    flat(tmp_path, ["a", ".b"], 1)
    assert data(tmp_path).load().names == ("a",)
    assert "left out, as names that begin with a dot are: .b" in caplog.text


def test_the_task_says_how_many_images_a_class_needs(tmp_path):
    task = FewShot("generate", 1, 3, 2, batch=1, val_episodes=0)
    assert "5 images: a (4), b (4)" in message(EpisodeData(data(flat(tmp_path, "ab")), task).setup)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, "is no folder"),
        (lambda root: root.mkdir(), "d holds no images: name the folder of your classes by data.root=DIR"),
        (lambda root: paint(root / "1.png"), "1.png lies directly in it"),
        (lambda root: (flat(root, "a"), (root / "a" / "b.png").mkdir()), ""),
    ],
)
def test_no_classes(tmp_path, make, says):
    make(tmp_path / "d")
    if says:
        assert says in message(data(tmp_path / "d").load)
    else:
        assert data(tmp_path / "d").load().counts.tolist() == [4]


def test_a_changed_or_renamed_file_is_noticed(tmp_path):
    flat(tmp_path, "ab")
    before = data(tmp_path).load()
    (tmp_path / "a").rename(tmp_path / "x")
    assert data(tmp_path).load().names == ("b", "x")
    paint(tmp_path / "b" / "0.png", (1, 2, 3))
    assert data(tmp_path).load().sha256 != before.sha256


def test_links_are_followed_and_circles_are_not(tmp_path):
    flat(tmp_path / "else", "a")
    flat(tmp_path / "d", "b")
    (tmp_path / "d" / "a").symlink_to(tmp_path / "else" / "a")
    (tmp_path / "d" / "b" / "up").symlink_to(tmp_path / "d")
    assert set(data(tmp_path / "d").load().names) >= {"a", "b"}
