import numpy as np
import pytest
import torch
from PIL import Image

from metagen.data import pixels
from metagen.functional import rng


def images(*shape, seed=0):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).byte()


@pytest.mark.parametrize("symmetry", range(8))
def test_symmetries_are_those_of_torch(symmetry):
    x = images(3, 2, 28, 28)
    permutation = pixels.symmetries(28)[symmetry].expand(3, -1)
    turned = pixels.permute(x.reshape(3, 2, -1), permutation).reshape(x.shape)
    start = x.flip(-1) if symmetry >= 4 else x
    assert torch.equal(turned, torch.rot90(start, symmetry % 4, (-2, -1)))


def test_symmetries_are_the_dihedral_group():
    group = pixels.symmetries(5)
    assert torch.equal(group[0], torch.arange(25))
    elements = {tuple(p.tolist()) for p in group}
    assert len(elements) == 8
    assert {tuple(p[q].tolist()) for p in group for q in group} == elements


def test_each_group_has_its_own_permutation():
    x = images(8, 3, 16)
    group = pixels.symmetries(4)
    turned = pixels.permute(x, group)
    assert all(torch.equal(turned[s], x[s][:, group[s]]) for s in range(8))


def test_unit_maps_0_and_255_exactly():
    x = pixels.unit(torch.arange(256).byte())
    assert x.dtype == torch.float32
    assert (x[0], x[255]) == (0, 1)
    assert torch.allclose(x * 255, torch.arange(256.0))


def test_resize():
    x = images(5, 105, 105)
    assert pixels.resize(x, 105) is x
    assert torch.equal(pixels.resize(x, 28, chunk=2), pixels.resize(x, 28))
    full = torch.full((2, 8, 8), 255).byte()
    assert torch.equal(pixels.resize(full, 28), torch.full((2, 28, 28), 255).byte())


def test_dilation_thickens_the_chosen_tasks_only():
    x = torch.zeros(3, 1, 1, 1, 5, 5)
    x[..., 2, 2] = 1
    out = pixels.dilate(x, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(out[0], x[0])
    block = torch.zeros(5, 5)
    block[1:4, 1:4] = 1
    assert torch.equal(out[2, 0, 0, 0], block)
    assert torch.equal(out[1], (x[1] + out[2]) / 2)


def test_binarize():
    key = rng.fold_in(rng.key(0), torch.arange(2))
    x = torch.tensor([0.0, 0.3, 0.5, 1.0]).expand(2, 5000, 4)
    assert pixels.binarize(x, "threshold", key)[0, 0].tolist() == [0, 0, 1, 1]
    noisy = pixels.binarize(x, "bernoulli", key)
    assert set(noisy.unique().tolist()) == {0, 1}
    assert torch.allclose(noisy.mean((0, 1)), x[0, 0], atol=0.02)
    assert torch.equal(noisy, pixels.binarize(x, "bernoulli", key))


def test_resize_takes_each_channel_by_itself():
    x = images(5, 3, 40, 40)
    whole = pixels.resize(x, 16)
    assert whole.shape == (5, 3, 16, 16)
    assert all(torch.equal(whole[:, c], pixels.resize(x[:, c], 16)) for c in range(3))


def test_grey_becomes_colour_and_back():
    grey = images(3, 6, 6)
    colour = pixels.channeled(grey, 3)
    assert colour.shape == (3, 3, 6, 6)
    assert torch.equal(colour[:, 0], grey)
    assert torch.equal(pixels.channeled(colour, 1)[:, 0], grey)
    rgb = images(4, 3, 8, 8)
    pil = [np.asarray(Image.fromarray(x.permute(1, 2, 0).numpy()).convert("L")) for x in rgb]
    assert np.array_equal(pixels.channeled(rgb, 1)[:, 0].numpy(), np.stack(pil))
