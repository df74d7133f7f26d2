"""Discretised likelihoods of pixels: all levels sum to one, and bounds equal the integral over z."""

import math

import pytest
import torch
from toys import shots

from metagen.core.episode import Shots
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.blocks import gaussian
from metagen.models.pixel_likelihood import Bernoulli, Logistic, pixel_likelihood
from metagen.models.vae import VAE

LEVELS = (torch.arange(256, dtype=torch.float64) / 255)[:, None, None, None]


@pytest.mark.parametrize("mean", [-40.0, -1.0, -0.3, 0.0, 0.7, 1.0, 25.0])
@pytest.mark.parametrize("log_scale", [-30.0, -2.0, 0.0, 3.0])
def test_the_levels_of_a_pixel_sum_to_one(mean, log_scale):
    output = torch.tensor([mean, log_scale], dtype=torch.float64).reshape(1, 2, 1, 1).expand(256, -1, -1, -1)
    total = Logistic(1).log_prob(LEVELS, output).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)


def test_a_level_has_the_mass_of_the_logistic_between_its_borders():
    x, output = torch.tensor([0.0, 100 / 255, 1.0]), torch.tensor([[0.2], [0.5]]).expand(2, 3)
    scale = math.exp(-7 + 8 / (1 + math.exp(-1.5)))
    law = torch.distributions.TransformedDistribution(
        torch.distributions.Uniform(0, 1),
        [torch.distributions.SigmoidTransform().inv, torch.distributions.AffineTransform(0.2, scale)],
    )
    pixel = (2 * x - 1).double()
    upper, lower = law.cdf(pixel + 1 / 255), law.cdf(pixel - 1 / 255)
    wanted = torch.stack([upper[0], upper[1] - lower[1], 1 - lower[2]]).log().sum().item()
    found = Logistic(1).log_prob(x.reshape(1, 1, 1, 3).double(), output.reshape(1, 2, 1, 3).double())
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_channels_have_a_mean_and_a_scale_each():
    assert (Logistic(3).maps, Bernoulli(3).maps) == (6, 3)
    output = torch.zeros(1, 6, 1, 1)
    output[0, :3, 0, 0] = torch.tensor([-1.0, 0.0, 9.0])
    assert Logistic(3).mean(output).flatten().tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(("kind", "colours", "name"), [
    (None, 1, "Bernoulli"), (None, 3, "discretised logistic"), ("logistic", 1, "discretised logistic"),
])  # fmt: skip
def test_what_fits_is_the_default(kind, colours, name):
    assert pixel_likelihood(kind, colours).name == name


def test_a_likelihood_that_is_not_there_is_refused():
    with pytest.raises(MetagenError, match=r"pixels=logistik: expected .*bernoulli, logistic.*logistic"):
        pixel_likelihood("logistik", 1)


def test_gradients_are_finite_however_far_off_the_mean_is():
    output = torch.tensor([[500.0], [-60.0]]).reshape(1, 2, 1, 1).requires_grad_()
    Logistic(1).log_prob(torch.zeros(1, 1, 1, 1), output).sum().backward()
    assert output.grad.isfinite().all()


@pytest.mark.parametrize("colours", [1, 3])
def test_importance_bound_of_256_levels_equals_quadrature(colours):
    """With one latent dimension the integral over z can be done on a grid, on a tiny image."""
    torch.manual_seed(1)
    model = VAE(2, 4, 1, 4, 8, size=8, colours=colours, pixels="logistic").double().requires_grad_(False)
    model.context.data = torch.randn_like(model.context)
    x = (torch.rand(1, 2, colours, 8, 8, dtype=torch.float64) * 255).round() / 255
    z = torch.linspace(-8, 8, 401, dtype=torch.float64)[:, None]
    mean, log_std = gaussian(model.prior(model.context))
    prior = torch.distributions.Normal(mean, log_std.exp()).log_prob(z)[:, 0]
    output = model.decoder(z, model.context.expand(len(z), -1))
    bounds = model.log_likelihood(Shots(x, torch.zeros(1, 2, dtype=torch.int64), rng.key(0)), 500)[0]
    for image, bound in zip(x[0], bounds, strict=True):
        given_z = Logistic(colours).log_prob(image.expand(len(z), -1, -1, -1), output)
        exact = (given_z + prior).logsumexp(0) + math.log(16 / 400)
        assert bound.item() == pytest.approx(exact.item(), abs=0.2)


def test_all_images_of_one_pixel_sum_to_one_under_a_vae():
    """The probability of 256 levels of one pixel, all others given, is that of any level of it."""
    torch.manual_seed(0)
    model = VAE(2, 4, 1, 4, 8, size=8, colours=3).double().requires_grad_(False)
    z, rest = torch.zeros(256, 1, dtype=torch.float64), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    x = rest.repeat(256, 1, 1, 1)
    x[:, 1, 2, 3] = LEVELS.flatten()
    output = model.decoder(z, model.context.expand(256, -1))
    joint = model.pixels.log_prob(x, output)
    one = Logistic(1).log_prob(x[:1, 1:2, 2:3, 3:4], output[:1, [1, 4], 2:3, 3:4])
    assert joint.logsumexp(0).item() == pytest.approx((joint[0] - one[0]).item())


def test_grey_digits_may_have_levels_too():
    model = VAE(2, 4, 4, 4, 16, pixels="logistic").double()
    model.context.data = torch.zeros(2, model.context.shape[1], dtype=torch.float64)
    assert 0 < model.loss(shots()).item() < 784 * 8 * math.log(2)
