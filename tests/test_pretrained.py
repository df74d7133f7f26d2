"""The models that ship: small, described, and of use for drawings that nobody trained them on."""

import re

import numpy as np
import pytest
import torch
from command_line import draw
from conftest import choices
from processes import inside

import metagen
from metagen.cli.main import run
from metagen.data.mnist_5k import MNIST5k
from metagen.runs.places import SHIPPED
from metagen.runs.records import WEIGHTS

pytest_plugins = ["data.data_fixtures"]

MODELS = sorted(path.name for path in SHIPPED.iterdir())
MOST = 4 * 10**6
"""Bytes of each, of the limit that packages have."""


def test_some_ship():
    assert "symbols" in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_it_is_small_and_its_card_says_what_it_is(name):
    folder = SHIPPED / name
    assert (folder / WEIGHTS).stat().st_size <= MOST
    card = (folder / "README.md").read_text()
    head, _, licence = card.partition("## Data and licence")
    assert head.startswith("---\nlibrary_name: metagen\nlicense: mit\n")
    assert "MIT" in licence
    assert "for you to name" not in licence, "the sentence that export leaves to whoever publishes"
    commands = re.findall(r"^metagen train (.*)$", card.replace("\\\n  ", " "), re.M)
    assert {word for line in commands for word in line.split() if word.startswith("experiment=")} <= {
        f"experiment={choice}" for choice in choices("experiment")
    }
    assert commands
    assert "| recognizability |" in card


def test_symbols_varies_what_it_is_shown(tmp_cwd):
    draw(tmp_cwd / "mine/stroke", k=1)
    draw(tmp_cwd / "mine/other", k=1)
    assert run(["generate", "pretrained/symbols", "--images", "mine", "--out", "new", "--n", "16"]) == 0
    arrays = np.load("new/samples.npz")
    assert arrays["samples"].shape == (2, 16, 28, 28)
    for row in arrays["samples"]:
        assert len(np.unique(row.reshape(16, -1), axis=0)) == 16, "no two are the same"


def centred(x):
    """Drawings (B, 1, S, S), each moved so that its ink is centred, as digits of MNIST are, and blurred."""
    side = x.shape[-1]
    at = torch.arange(side).float()
    ink = x.sum((1, 2, 3)).clamp_min(1e-6)
    rows, columns = (((x.sum((1, dim)) * at).sum(-1) / ink) for dim in (3, 2))
    moved = [
        one.roll((round(side / 2 - float(r)), round(side / 2 - float(c))), (1, 2))
        for one, r, c in zip(x, rows, columns, strict=True)
    ]
    return torch.nn.functional.avg_pool2d(torch.stack(moved), 3, 1, 1).flatten(1)


def nearest(x, reference):
    return torch.cdist(centred(x), centred(reference)).argmin(-1)


def test_symbols_draws_digits_that_are_known_from_one_image_of_each(banks):
    """No digit was ever shown to it; one of its kind is the nearest of 1,000 real ones."""
    bank = MNIST5k(cache=str(banks)).load()
    x = torch.from_numpy(np.asarray(bank.images)).float() / 255
    y = torch.as_tensor(np.asarray(bank.labels))
    shown = torch.stack([(y == digit).nonzero()[:10, 0] for digit in range(10)])
    rest = torch.zeros(len(y), dtype=torch.bool)
    rest[::5] = True
    rest[shown.flatten()] = False
    symbols = metagen.load("pretrained/symbols")
    right = []
    for k in range(3):
        drawn = symbols.generate(x[shown[:, k : k + 1]], n=16, seed=k)
        found = y[rest][nearest(drawn.flatten(0, 1), x[rest])].unflatten(0, (10, 16))
        right.append((found == torch.arange(10)[:, None]).float().mean())
    assert torch.stack(right).mean() > 0.6


def test_it_opens_in_python_and_takes_several_images():
    symbols = metagen.load("pretrained/symbols")
    images = torch.rand(2, 3, 1, 28, 28)
    assert symbols.generate(images, n=2).shape == (2, 2, 1, 28, 28)


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_another_name_is_refused_with_those_that_ship(command, tmp_path, capsys):
    more = {"generate": ["--images", "mine", "--out", "new"]}.get(command, [])
    with inside(tmp_path):
        assert run([command, "pretrained/symbol", *more]) in (1, 2)
    assert "did you mean 'symbols'" in capsys.readouterr().err


@pytest.mark.slow
def test_symbols_draws_without_metagen(tmp_cwd, capsys):
    import onnxruntime

    draw(tmp_cwd / "mine/stroke", k=2)
    draw(tmp_cwd / "mine/other", k=2)
    argv = ["export", "pretrained/symbols", "--onnx", "symbols.onnx", "--images", "mine"]
    assert run([*argv, "model.sample_steps=1"]) == 0
    assert "draws 2 classes from y, uniform_0, normal_1, uniform_2; " in capsys.readouterr().out
    session = onnxruntime.InferenceSession("symbols.onnx")
    assert [node.shape for node in session.get_inputs()] == [
        ["batch"], ["batch", 16, 2], ["batch", 16, 104], ["batch", 16]
    ]  # fmt: skip
