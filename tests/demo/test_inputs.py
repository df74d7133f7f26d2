"""Drawings and uploads become images like the data's, and nothing that a visitor sends does harm."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from metagen.data.form import Form
from metagen.data.user_pictures import read_image
from metagen.demo import inputs
from metagen.demo.inputs import from_files, from_images, from_strokes
from metagen.errors import MetagenError

GREY, SMALL, COLOUR = Form(28), Form(20), Form(32, 3, ink=False)
SEVEN = [[[0.3, 0.2], [0.7, 0.2], [0.45, 0.8]]]


def drawn(*drawings, forms=(GREY,)):
    return from_strokes(json.dumps(drawings), forms)


def scaled(strokes, by, x=0.0, y=0.0):
    return [[[a * by + x, b * by + y] for a, b in stroke] for stroke in strokes]


def test_a_drawing_is_light_on_dark_in_the_frame_of_the_data():
    found = drawn(SEVEN, [], scaled(SEVEN, 0.3), forms=(SMALL, GREY))
    assert {form: images.shape for form, images in found.items()} == {SMALL: (2, 20, 20), GREY: (2, 28, 28)}
    image = found[GREY][0]
    assert image.dtype == np.uint8
    assert image.max() == 255
    assert (image == 0).mean() > 0.6
    rows, columns = np.flatnonzero((image > 60).any(1)), np.flatnonzero((image > 60).any(0))
    assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    stem = image[rows[-1] - 8 : rows[-1] - 2].astype(float) / 255
    assert 1.6 <= stem.sum(1).mean() <= 3.2, "two to three pixels wide, as handwriting in the data"


@pytest.mark.parametrize("by", [0.2, 0.5, 1.0])
def test_the_stroke_is_as_wide_however_large_somebody_draws(by):
    whole, other = drawn(SEVEN)[GREY][0].astype(int), drawn(scaled(SEVEN, by, 0.1, 0.05))[GREY][0].astype(int)
    assert np.abs(whole - other).mean() < 3


def test_a_drawing_is_framed_as_a_picture_of_it_would_be(tmp_path):
    paper = Image.new("L", (300, 300), 255)
    corners = [(300 * x, 300 * y) for x, y in SEVEN[0]]
    ImageDraw.Draw(paper).line(corners, 0, 20, joint="curve")
    paper.save(tmp_path / "seven.png")
    gap = read_image(tmp_path / "seven.png").astype(int) - drawn(SEVEN)[GREY][0]
    assert np.abs(gap).mean() < 12


@pytest.mark.parametrize(
    "text", [None, "", "[]", "[[],[],[]]", "[[[[0.5,0.5]]]]", "[[[[0.5,0.5],[0.51,0.5]]]]"]
)
def test_nothing_drawn_is_no_error(text):
    assert from_strokes(text, [GREY]) == {}


@pytest.mark.parametrize(
    "text",
    ["[", "{}x", "7", '"ab"', '[[[["a","b"]]]]', "[[[[1,2,3]]]]", "[[[[NaN,0],[0,1]]]]",
     "[[[[1e400,0],[0,1]]]]", "[[[[1e9,0],[0,1]]]]", json.dumps([SEVEN] * 6), "[" * 100_000,
     json.dumps([[[[0.1, 0.2]] * 30_000]])],
)  # fmt: skip
def test_what_is_no_drawing_is_one_line(text):
    with pytest.raises(MetagenError, match="cannot read the drawings") as caught:
        from_strokes(text, [GREY])
    assert "\n" not in str(caught.value)


def test_drawings_have_a_limit():
    with pytest.raises(MetagenError, match="too many points"):
        from_strokes(" " * (inputs.MAX_TEXT + 1), [GREY])


def paper(path, text=None):
    if text is None:
        image = Image.new("RGB", (90, 80), "white")
        ImageDraw.Draw(image).line([(20, 10), (70, 60)], "navy", 6)
        image.save(path)
    else:
        path.write_text(text)
    return path


def test_uploads_are_read_as_generate_reads_them(tmp_path):
    files = [paper(tmp_path / "a.png"), paper(tmp_path / "b.jpg")]
    found = from_files(files, (SMALL, GREY))
    assert {form: images.shape for form, images in found.items()} == {SMALL: (2, 20, 20), GREY: (2, 28, 28)}
    for form, images in found.items():
        for file, image in zip(files, images, strict=True):
            assert np.array_equal(image, read_image(file, form.size))


def test_bad_uploads_are_named_without_their_folder(tmp_path, monkeypatch):
    bad = paper(tmp_path / "bad.png", "no picture")
    with pytest.raises(MetagenError, match=r"^bad\.png is not an image"):
        from_files([paper(tmp_path / "a.png"), bad], [GREY])
    Image.new("L", (40, 40), 255).save(bad)
    with pytest.raises(MetagenError, match=r"^bad\.png is blank"):
        from_files([bad], [GREY])
    Image.new("1", (5001, 5001)).save(bad)
    with pytest.raises(MetagenError, match=r"^bad\.png has 5001 x 5001 pixels, more than 25,000,000"):
        from_files([bad], [GREY])
    monkeypatch.setattr(inputs, "MAX_FILE", 10)
    with pytest.raises(MetagenError, match=r"bad\.png is larger"):
        from_files([bad], [GREY])


@pytest.mark.parametrize("count", [0, 6])
def test_the_number_of_uploads(tmp_path, count):
    with pytest.raises(MetagenError, match=f"{count} files: choose 1 to 5"):
        from_files([paper(tmp_path / f"{k}.png") for k in range(count)], [GREY])


def test_images_of_a_data_set_stay_or_are_framed_anew():
    images = drawn(SEVEN)[GREY]
    found = from_images(images, (SMALL, GREY))
    assert found[GREY] is images
    small = found[SMALL][0]
    assert small.shape == (20, 20)
    assert 12 <= np.ptp(np.flatnonzero((small > 60).any(1))) + 1 <= 15


def test_runs_in_colour_see_a_drawing_as_dark_strokes_on_white():
    found = drawn(SEVEN, forms=(GREY, COLOUR))[COLOUR]
    assert found.shape == (1, 32, 32, 3)
    assert (found[..., 0] == found[..., 2]).all()
    assert found[0, 0, 0].tolist() == [255, 255, 255]
    assert found.min() < 40


def test_uploads_for_a_run_in_colour_keep_their_colours(tmp_path):
    found = from_files([paper(tmp_path / "a.png")], (COLOUR,))[COLOUR]
    assert found.shape == (1, 32, 32, 3)
    blue = found[0].astype(int)
    assert (blue[..., 2] - blue[..., 0]).max() > 80
    assert found[0, 0, -1].tolist() == [255, 255, 255]


def test_images_of_a_data_set_are_shown_to_runs_of_another_colour():
    grey = np.zeros((2, 28, 28), np.uint8)
    grey[:, 10:20, 5:9] = 200
    colour = from_images(grey, (COLOUR,))[COLOUR]
    assert colour.shape == (2, 32, 32, 3)
    assert colour.max() > 180
    assert (colour[..., 0] == colour[..., 1]).all()
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    assert from_images(red, (Form(32, 1, ink=False),))[Form(32, 1, ink=False)].tolist() == [[[76] * 32] * 32]
