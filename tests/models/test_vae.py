"""The variational autoencoder against what its bound must do."""

import math

import pytest
import torch
from toys import bounds_after_the_elbo, fitted_to, shots

from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.blocks import gaussian
from metagen.models.vae import VAE

ROW = 49 * 2 + 4


def small():
    torch.manual_seed(0)
    return VAE(maps=2, features=4, latent=4, channels=4, hidden=16).double()


@pytest.fixture(scope="module")
def fitted():
    """A model a few steps on, so that its posterior is not its prior."""
    model = fitted_to(shots(), small(), ROW)
    return model.requires_grad_(False)


@pytest.mark.slow
def test_elbo_is_below_the_importance_bound_and_the_bound_tightens(fitted):
    elbo, bounds = bounds_after_the_elbo(fitted, shots(), 150, (1, 10, 100), 8)
    assert elbo < bounds[2]
    assert bounds[0] < bounds[1] < bounds[2]


def test_loss_is_nats_per_image(fitted):
    """A decoder that knows nothing costs 784 ln 2 nats an image, and no KL."""
    model = small()
    for p in model.parameters():
        p.data.zero_()
    model.context.data = torch.zeros(2, ROW, dtype=torch.float64)
    assert model.loss(shots()).item() == pytest.approx(784 * math.log(2))
    assert model.log_likelihood(shots(), 3).tolist() == [[pytest.approx(-784 * math.log(2))] * 3] * 2


def test_importance_bound_equals_quadrature():
    """With one latent dimension the integral over z can be done on a grid."""
    torch.manual_seed(1)
    model = VAE(maps=2, features=4, latent=1, channels=4, hidden=8).double().requires_grad_(False)
    model.context.data = torch.randn(1, ROW, dtype=torch.float64)
    data = shots(1, 2)
    z = torch.linspace(-10, 10, 4_001, dtype=torch.float64)[:, None]
    rows = model.context.expand(len(z), -1)
    mean, log_std = gaussian(model.prior(model.context))
    prior = torch.distributions.Normal(mean, log_std.exp()).log_prob(z)[:, 0]
    logits = model.decoder(z, rows)
    for image, bound in zip(data.x[0], model.log_likelihood(data, 500)[0], strict=True):
        likelihood = (image * logits - torch.nn.functional.softplus(logits)).flatten(1).sum(1)
        exact = (likelihood + prior).logsumexp(0) + math.log(20 / 4_000)
        assert bound.item() == pytest.approx(exact.item(), abs=0.1)


def test_the_context_row_of_a_class_decides_what_is_drawn(fitted):
    keys = rng.key(5)
    a, b = (fitted.sample(torch.full((4,), label), keys) for label in (0, 1))
    assert a.shape == (4, 1, 28, 28)
    assert a.min() >= 0
    assert a.max() <= 1
    assert not torch.allclose(a, b)
    assert torch.equal(a, fitted.sample(torch.zeros(4, dtype=torch.int64), keys)), (
        "a pure function of the key"
    )


def test_gradient_of_a_class_stays_in_its_row():
    model = small()
    model.context = torch.nn.Parameter(torch.randn(3, ROW, dtype=torch.float64))
    data = shots(2)
    model.loss(data).backward()
    moved = model.context.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, True, False]


def test_bad_arguments():
    with pytest.raises(MetagenError, match="latent"):
        VAE(latent=0)
