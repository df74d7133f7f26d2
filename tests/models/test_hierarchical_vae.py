"""The hierarchical autoencoder against what its bound and its context must do."""

import math

import pytest
import torch
from toys import bounds_after_the_elbo, fitted_to, shots

from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.blocks import gaussian
from metagen.models.hierarchical_vae import HierarchicalVAE, _Attention

SIZES = {"maps": 2, "features": 4, "latent": 2, "latent_maps": 1, "channels": 4, "hidden": 16, "heads": 2}
ROW = 4 + 2 * 49 * 2


def small(**changes):
    torch.manual_seed(0)
    return HierarchicalVAE(**SIZES | changes).double()


@pytest.fixture(scope="module")
def fitted():
    """A model a few steps on, so that its posterior is not its prior, nor its attention a mean."""
    model = fitted_to(shots(), small(), ROW)
    for aggregate in model.set_encoder.aggregates:
        torch.nn.init.normal_(aggregate.query.weight)
    return model.requires_grad_(False)


@pytest.mark.slow
def test_the_elbo_is_one_sample_of_the_bound_and_the_bound_tightens(fitted):
    _, bounds = bounds_after_the_elbo(fitted, shots(), 60, (1, 8, 64), 6)
    assert bounds[0] < bounds[1] < bounds[2]


def deaf(level):
    """Make p(z_l), q(z_l) and what is below blind to z_l: one number of z is left to integrate over."""
    for part in (level.prior, level.posterior):
        part.weight.data.zero_()
        part.bias.data.zero_()
    level.leave.conv.weight.data[:, -SIZES["latent_maps"] :] = 0


@pytest.mark.slow
def test_the_bound_reaches_quadrature_from_below():
    """Where the image depends on one number of z only, the integral over it can be done on a grid."""
    model = small(levels=1, latent=1).requires_grad_(False)
    model.context.data = torch.randn(1, 4 + 49 * 2, dtype=torch.float64)
    torch.nn.init.normal_(model.top.mix[0].weight)
    deaf(model.levels[0])
    data, z = shots(1, 2), torch.linspace(-10, 10, 2_001, dtype=torch.float64)[:, None]
    c, c_maps = model.context.split(model.parts, 1)
    h = model.top.mix(torch.cat([z, c.expand(len(z), -1)], 1))
    state = model.top.drawn(h).unflatten(1, (-1, 7, 7))
    c_maps = c_maps.unflatten(1, (-1, 7, 7)).expand(len(z), -1, -1, -1)
    state, _ = model.levels[0](state, h, c_maps, None, rng.key(0))
    logits = model.decoder(state, h)
    mean, log_std = gaussian(model.top.prior(c))
    prior = torch.distributions.Normal(mean, log_std.exp()).log_prob(z)[:, 0]
    likelihood = data.x[0, :, None] * logits - torch.nn.functional.softplus(logits)
    exact = (likelihood.flatten(2).sum(2) + prior).logsumexp(1) + math.log(20 / 2_000)
    few, many = (torch.stack([model.log_likelihood(data.at(i), s)[0] for i in range(12)]) for s in (1, 60))
    error = few.std(0) / 12**0.5
    assert (few.mean(0) < exact + 4 * error).all()
    assert (few.mean(0) < many.mean(0) + 4 * error).all()
    torch.testing.assert_close(many.mean(0), exact, atol=0.2, rtol=0)


def test_every_layer_of_z_costs_nats_and_is_used(fitted):
    data = shots()
    logits, draws = fitted._descend(data.y, data.key, data.x.flatten(0, 1))
    assert [tuple(draw.z.shape) for draw in draws] == [(6, 2), (6, 1, 7, 7), (6, 1, 7, 7)]
    assert all(not torch.allclose(draw.q[0], draw.p[0]) for draw in draws)
    noises = [draw.noise.flatten() for draw in draws]
    assert not torch.allclose(noises[1], noises[2]), "each layer has noise of its own"
    other, _ = fitted._descend(data.y, rng.fold_in(data.key, 9), data.x.flatten(0, 1))
    assert not torch.allclose(logits, other)


def test_loss_is_nats_per_image():
    """A decoder that knows nothing costs 784 ln 2 nats an image, and no KL."""
    model = small()
    for p in model.parameters():
        p.data.zero_()
    model.context.data = torch.zeros(2, ROW, dtype=torch.float64)
    assert model.loss(shots()).item() == pytest.approx(784 * math.log(2))
    assert model.log_likelihood(shots(), 3).tolist() == [[pytest.approx(-784 * math.log(2))] * 3] * 2


def test_each_part_of_a_row_decides_what_is_drawn(fitted):
    y, key = torch.zeros(3, dtype=torch.int64), rng.key(5)
    drawn = fitted.sample(y, key)
    assert drawn.shape == (3, 1, 28, 28)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.equal(drawn, fitted.sample(y, key)), "a pure function of the key"
    start, row = 0, fitted.context.data.clone()
    for part in fitted.parts:
        fitted.context.data[:, start : start + part] += 1
        assert not torch.allclose(fitted.sample(y, key), drawn)
        fitted.context.data.copy_(row)
        start += part


def test_gradient_of_a_class_stays_in_its_row():
    model = small()
    model.context = torch.nn.Parameter(torch.randn(3, ROW, dtype=torch.float64))
    model.loss(shots(2)).backward()
    assert (model.context.grad.abs().sum(1) > 0).tolist() == [True, True, False]


def test_the_context_is_that_of_a_set(fitted):
    data = shots(2, 4)
    row = fitted.encode(data)["context"]
    assert row.shape == (2, ROW)
    torch.testing.assert_close(fitted.encode(data._replace(x=data.x[:, [2, 0, 3, 1]]))["context"], row)
    twice = data._replace(x=torch.cat([data.x, data.x], 1), y=torch.cat([data.y, data.y], 1))
    torch.testing.assert_close(fitted.encode(twice)["context"], row, msg="the scale knows no K")
    other = data._replace(x=torch.cat([data.x[:1], 1 - data.x[1:]]))
    torch.testing.assert_close(fitted.encode(other)["context"][0], row[0], msg="classes do not mix")
    assert fitted.encode(shots(1, 1))["context"].shape == (1, ROW)


def test_untrained_attention_is_the_mean_and_trained_one_follows_the_layer_above():
    torch.manual_seed(0)
    attention = _Attention(3, 4, heads=2, size=5).double()
    rows, above = torch.randn(2, 6, 4, 7, 7).double(), torch.randn(2, 3, 1, 1).double()
    torch.testing.assert_close(attention(rows, above), rows.mean(1))
    torch.nn.init.normal_(attention.query.weight)
    assert not torch.allclose(attention(rows, above), attention(rows, -above))


def test_attention_equals_pytorch():
    torch.manual_seed(0)
    attention = _Attention(3, 4, heads=2, size=5).double()
    torch.nn.init.normal_(attention.query.weight)
    rows, above = torch.randn(2, 6, 4, 7, 7).double(), torch.randn(2, 3, 7, 7).double()
    query, keys = attention.query(above), attention.key(rows.flatten(0, 1)).unflatten(0, (2, 6))

    def split(x):
        """(N, K, heads * d, H, W) to (N, H, W, heads, K, d)."""
        return x.unflatten(2, (2, -1)).permute(0, 4, 5, 2, 1, 3)

    want = torch.nn.functional.scaled_dot_product_attention(split(query[:, None]), split(keys), split(rows))
    torch.testing.assert_close(attention(rows, above), want.squeeze(4).flatten(3).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"levels": 0}, "levels=0"), ({"heads": 3}, "model.heads=3: expected a common divisor")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(MetagenError, match=message):
        HierarchicalVAE(**arguments)
