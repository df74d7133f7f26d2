"""Networks that grow with their images, and at 28 x 28 grey are what they were."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from metagen.core.episode import Shots
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.basenet import BaseNet
from metagen.models.blocks import SelfAttention
from metagen.models.conv4 import Conv4
from metagen.models.flow import Flow
from metagen.models.gan import GAN
from metagen.models.hierarchical_vae import HierarchicalVAE
from metagen.models.pixel_transformer import PixelTransformer
from metagen.models.sizes import halvings, poolings
from metagen.models.vae import VAE

BEFORE = json.loads(Path(__file__).with_name("grey_28.json").read_text())
MODELS = {"vae": VAE, "flow": Flow, "gan": GAN, "hierarchical_vae": HierarchicalVAE, "basenet": BaseNet,
          "pixel_transformer": PixelTransformer, "conv4": Conv4}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_at_28_pixels_in_grey_nothing_has_changed(name):
    """Names, shapes, initialisation and loss are those of checkpoints from before there were colours."""
    torch.manual_seed(0)
    model, before = MODELS[name](), BEFORE[name]
    weights = model.state_dict()
    shapes = repr([(key, tuple(value.shape)) for key, value in weights.items()])
    assert sum(p.numel() for p in model.parameters()) == before["parameters"]
    assert hashlib.sha256(shapes.encode()).hexdigest() == before["names"]
    if model.kind == "generate":
        model.context.data = model.context.data.expand(2, -1).clone()
    total = sum(value.double().abs().sum().item() for value in model.state_dict().values())
    assert total == pytest.approx(before["weights"], rel=1e-9)
    x = (torch.arange(2 * 3 * 784) * 37 % 256 / 255).reshape(2, 3, 1, 28, 28)
    loss = model.loss(Shots(x, torch.arange(2)[:, None].expand(2, 3), rng.key(3))).item()
    assert loss == pytest.approx(before["loss"], rel=1e-5)


def test_images_are_halved_until_attention_is_cheap():
    sizes = (8, 16, 28, 32, 36, 48, 64, 96, 128)
    assert [s >> halvings(s, "a model") for s in sizes] == [2, 4, 7, 8, 9, 6, 8, 6, 8]
    assert [s >> poolings(s) for s in (8, 28, 30, 32, 64, 100, 128)] == [2, 7, 7, 8, 8, 6, 8]


@pytest.mark.parametrize("model", [VAE, HierarchicalVAE, Flow, GAN])
def test_a_side_that_cannot_be_halved_twice_is_refused(model):
    with pytest.raises(MetagenError, match=f"{model.__name__}: size=30: .*a multiple of 4"):
        model(size=30)


@pytest.mark.parametrize("model", [VAE, HierarchicalVAE, Flow, GAN])
@pytest.mark.parametrize("colours", [0, 2, 4])
def test_other_numbers_of_channels_are_refused(model, colours):
    with pytest.raises(MetagenError, match=f"colours={colours}: expected one of 1, 3"):
        model(colours=colours)


@pytest.mark.parametrize("size", [8, 128])
@pytest.mark.parametrize(("make", "least"), [
    (lambda s: VAE(2, 4, 2, 4, 8, size=s, colours=3), 8),
    (lambda s: HierarchicalVAE(1, 4, 4, 2, 2, 4, 8, 4, size=s, colours=3), 8),
    (lambda s: Flow(s, 2, 4, 4, 8, colours=3, sample_steps=1, heads=2), 8),
    (lambda s: GAN(s, 4, 4, 4, 8, colours=3), 8),
])  # fmt: skip
def test_the_smallest_and_the_largest_images(make, size, least):
    model = make(size)
    model.context.data = model.context.data.expand(2, -1).clone()
    x = torch.rand(2, 1, 3, size, size)
    loss = model.loss(Shots(x, torch.arange(2)[:, None], rng.key(0)))
    loss.backward()
    assert loss.isfinite()
    with torch.no_grad():
        assert model.sample(torch.tensor([1]), rng.key(1)).shape == (1, 3, size, size)


@pytest.mark.parametrize("size", [8, 30, 64, 128])
def test_the_judge_takes_any_size(size):
    net = BaseNet(3, size, 3, 8)
    assert net.logits(torch.rand(2, 3, size, size)).shape == (2, 3)


def test_self_attention_starts_as_the_identity_and_then_looks_everywhere():
    torch.manual_seed(0)
    layer = SelfAttention(8, 2)
    x = torch.rand(1, 8, 3, 3)
    torch.nn.init.zeros_(layer.out.bias)
    assert torch.equal(layer(x), x)
    torch.nn.init.ones_(layer.out.weight)
    moved = x.clone().requires_grad_()
    layer(moved)[0, 0, 0, 0].backward()
    assert (moved.grad[0].abs().sum(0) > 0).all()


def test_self_attention_is_that_of_torch():
    torch.manual_seed(0)
    layer = SelfAttention(8, 2)
    torch.nn.init.normal_(layer.out.weight)
    x = torch.rand(2, 8, 3, 3)
    q, k, v = layer.qkv(layer.norm(x)).reshape(2, 3, 2, 4, 9).transpose(-2, -1).unbind(1)
    seen = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    wanted = x + layer.out(seen.transpose(-2, -1).reshape(2, 8, 3, 3))
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_attention_needs_a_divisor():
    with pytest.raises(MetagenError, match=r"model.heads=3: expected 0 or a divisor of 2 model.channels=64"):
        Flow(heads=3)
