"""The form of a run's images: what a configuration says of it, and pictures of any kind read in it."""

import numpy as np
import pytest
from PIL import Image

from metagen.data.form import Form
from metagen.errors import MetagenError


@pytest.mark.parametrize(("data", "form"), [
    ({"size": 28}, Form(28)),
    ({"size": 28, "channels": 1}, Form(28)),
    ({"size": 32, "channels": 3}, Form(32, 3, ink=False)),
    ({"size": 32, "channels": 1, "ink": False, "fit": "stretch"}, Form(32, 1, ink=False, fit="stretch")),
])  # fmt: skip
def test_grey_images_are_drawings_unless_the_data_say_otherwise(data, form):
    assert Form.of(data) == form


def test_images_without_a_side_are_refused():
    with pytest.raises(MetagenError, match=r"data\.size=None: expected the side of an image"):
        Form.of({"channels": 3})


def test_a_photograph_is_cut_square_and_keeps_its_colours(tmp_path):
    image = Image.new("RGB", (90, 60), "white")
    image.paste("red", (30, 0, 60, 60))
    image.save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), image):
        x = Form(30, 3, ink=False).read(source)
        assert (x.shape, x.dtype) == ((30, 30, 3), np.uint8)
        assert x[15, 15].tolist() == [255, 0, 0]
        assert x[15, 1].tolist() == [255, 255, 255]
    assert Form(30, 3, ink=False, fit="stretch").read(image)[15, 11].tolist() == [255, 0, 0]
    assert Form(30, 1, ink=False).read(image)[15, 15] == 76, "the luma of red"


@pytest.mark.parametrize(("name", "text"), [
    ("b.png", "b.png: no picture of a known kind"), ("c.heic", "c.heic: a HEIC file"),
    ("no.png", "no.png: no file"),
])  # fmt: skip
def test_what_is_no_photograph_is_named(tmp_path, name, text):
    if name != "no.png":
        (tmp_path / name).write_text("no picture")
    with pytest.raises(MetagenError, match=rf"cannot read the image .*{text}"):
        Form(32, 3, ink=False).read(tmp_path / name)


def test_a_photograph_of_too_many_pixels_is_refused(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(MetagenError, match=r"^cannot read the image a: has 40 x 40 pixels, more than 100"):
        Form(32, 3, ink=False).read(tmp_path / "a.png", "a", 100)


@pytest.mark.parametrize(("pixels", "values"), [
    ([0.4, 0.4], [102]), ([102, 102], [102]), ([0, 1], [0, 255]), ([-1, 1], [0, 255]),
    ([float("nan"), 1], [0, 255]),
])  # fmt: skip
def test_a_photograph_of_fractions_is_read_by_its_range(tmp_path, pixels, values):
    Image.fromarray(np.tile(np.float32(pixels), (32, 16))).save(tmp_path / "a.tif")
    assert np.unique(Form(32, 3, ink=False).read(tmp_path / "a.tif")).tolist() == values
