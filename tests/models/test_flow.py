"""Flow matching against ordinary differential equations with known solutions."""

import math
from functools import partial

import pytest
import torch

from metagen.core.episode import Shots
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.flow import Flow, _linear, euler, heun, log_density, with_divergence

MEAN, SD = 0.3, 0.6


def small(size=8, **arguments):
    torch.manual_seed(0)
    model = Flow(size=size, maps=2, features=4, channels=4, hidden=8, **arguments).double()
    model.context.data = torch.randn(2, model.context.shape[1], dtype=torch.float64)
    model.null.data = torch.randn(1, model.context.shape[1], dtype=torch.float64)
    return model.requires_grad_(False)


def shots(n=2, k=3, key=0, size=8):
    x = torch.rand(n, k, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Shots(x, torch.arange(n)[:, None].expand(n, k), rng.key(key))


def to_gaussian(x, t):
    """The field that carries N(0, 1) to N(MEAN, SD^2) along straight conditional paths."""
    return MEAN + _linear(torch.tensor(t, dtype=x.dtype), SD**2) * (x - t * MEAN)


def test_guidance_blends_the_two_fields():
    model, y, key = small(sample_steps=1, solver=euler), torch.tensor([0, 1, 0]), rng.key(3)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    null, given = (model.field(model.context[y], w)(x, 0.4) for w in (0.0, 1.0))
    assert not torch.allclose(null, given)
    torch.testing.assert_close(model.field(model.context[y], 2.5)(x, 0.4), null + 2.5 * (given - null))
    model.guidance = 0.0
    free = model.sample(y, key)
    assert torch.equal(free, model.sample(1 - y, key)), "without guidance the class does not matter"
    model.guidance, model.context.data = 1.0, model.null.expand(2, -1)
    torch.testing.assert_close(model.sample(y, key), free)
    assert free.min() >= 0
    assert free.max() <= 1


def test_guidance_of_one_never_reads_the_null_row():
    model, y, key = small(guidance=1.0), torch.tensor([0, 1]), rng.key(3)
    before = model.sample(y, key)
    model.null.data.fill_(torch.nan)
    assert torch.equal(model.sample(y, key), before)
    assert not torch.equal(before[0], before[1])


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0])
def test_guidance_of_one_costs_half(w):
    """Images that the net sees in a sample: twice as many, only where both fields are needed."""
    model, seen = small(guidance=w, sample_steps=2), []
    model.net.register_forward_hook(lambda net, given, out: seen.append(len(out)))
    model.sample(torch.tensor([0, 1, 1]), rng.key(0))
    assert seen == [6 if w == 2 else 3] * 4


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
def test_order_of_convergence(solver, order):
    """dx/dt = -2 x + t from x(0) = 1; forwards, and backwards from there."""
    exact = 1.25 * math.exp(-2) + 0.25

    def error(steps, start, stop, x, want):
        return abs(solver(lambda x, t: t - 2 * x, torch.tensor(x).double(), start, stop, steps).item() - want)

    for way in ((0.0, 1.0, 1.0, exact), (1.0, 0.0, exact, 1.0)):
        slope = math.log2(error(64, *way) / error(128, *way))
        assert slope == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("solver", [euler, heun])
def test_the_best_field_of_a_gaussian_gives_its_samples(solver):
    """x_1 = MEAN + SD x_0 exactly, so that its moments are those of the noise, moved and scaled."""
    x0 = rng.normal(rng.key(0), (20_000,), torch.float64)
    x1 = solver(to_gaussian, x0, 0.0, 1.0, 200)
    torch.testing.assert_close(x1, MEAN + SD * x0, atol=0.02, rtol=0)
    assert x1.mean().item() == pytest.approx(MEAN, abs=4 * SD / len(x1) ** 0.5 + 0.01)
    assert x1.std().item() == pytest.approx(SD, abs=0.01)


def test_the_loss_is_least_at_the_best_field_and_then_is_the_spread_of_images():
    """Among linear fields, for pixels of mean 0 and variance 1/3; the mean error over t by a grid."""
    model, data = small(size=4), shots(1, 20_000, size=4)
    model.context.data = model.context[:1]

    def loss(field):
        model.net.forward = lambda x, t, c: field(t)[:, None, None, None] * x
        return model.loss(data).item()

    best = loss(lambda t: _linear(t, 1 / 3))
    t = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    want = (1 / 3 / (t**2 / 3 + (1 - t) ** 2)).mean().item()
    assert best == pytest.approx(want, rel=0.02)
    for shift in (-0.2, 0.2):
        assert loss(lambda t, shift=shift: _linear(t, 1 / 3) + shift) > best


def test_divergence_equals_the_jacobian():
    model = small(size=4)
    c, x = model.context[[0, 1, 1]], torch.randn(3, 1, 4, 4, dtype=torch.float64)

    def v(x):
        return model.field(c)(x, 0.3)

    jacobian = torch.autograd.functional.jacobian(v, x).reshape(3, 16, 3, 16)
    want = torch.stack([jacobian[i, :, i].trace() for i in range(3)])
    for rows in (5, 16, 64):
        velocity, trace = with_divergence(v, x, rows)
        torch.testing.assert_close(trace, want)
        torch.testing.assert_close(velocity, v(x))


def test_density_equals_the_closed_form():
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    want = torch.distributions.Normal(MEAN, SD).log_prob(x).flatten(1).sum(1)
    errors = [(log_density(to_gaussian, x, heun, steps) - want).abs().max() for steps in (50, 100)]
    assert errors[1] < 1e-2
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_log_likelihood_is_the_density_of_pixels_between_0_and_1():
    """Where every image is noise, N(0, 1) on [-1, 1]: one level has the mass of its interval."""
    model, data = small(size=4, sample_steps=1, solver=euler), shots(2, 2, size=4)
    data = data._replace(x=(data.x * 255).round() / 255)
    model.net.forward = lambda x, t, c: torch.zeros_like(x) * x
    edges = data.x * 255 / 128 - 1
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    exact = (256 * (normal.cdf(edges + 1 / 128) - normal.cdf(edges))).log().flatten(2).sum(2)
    torch.testing.assert_close(model.log_likelihood(data, 200), exact, atol=2e-2, rtol=0)
    assert model.log_likelihood(data, 1).shape == (2, 2)


def test_loss_is_pure_in_parameters_and_key():
    model, data = small(context_dropout=0.5), shots()
    torch.manual_seed(1)
    first = model.loss(data)
    assert torch.equal(first, model.loss(data))
    assert not torch.equal(first, model.loss(data.at(1)))
    assert torch.equal(model.sample(data.y[:, 0], data.key), model.sample(data.y[:, 0], data.key))


def test_context_dropout_gives_the_null_row_its_share():
    model, data = small(context_dropout=0.25), shots(2, 2_000)
    null = []
    model.net.forward = lambda x, t, c: null.append((c == model.null).all(1)) or torch.zeros_like(x)
    model.loss(data)
    assert null[0].double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4_000) ** 0.5)
    model.context_dropout = 0.0
    model.loss(data)
    assert not null[1].any()


def test_gradient_of_a_class_stays_in_its_row():
    model = small().requires_grad_()
    model.context = torch.nn.Parameter(torch.randn(3, model.context.shape[1], dtype=torch.float64))
    model.loss(shots()).backward()
    assert (model.context.grad.abs().sum(1) > 0).tolist() == [True, True, False]


def test_the_order_of_the_support_images_does_not_matter():
    model, data = small(), shots(2, 4)
    row = model.encode(data)["context"]
    assert row.shape == (2, 2 * 4 + 4)
    torch.testing.assert_close(model.encode(data._replace(x=data.x[:, [2, 0, 3, 1]]))["context"], row)
    assert not torch.allclose(row[0], row[1])


def test_a_few_steps_of_training_teach_two_classes():
    """One grey level each, told by the table: the samples have it."""
    model = small(size=4, guidance=1.0).requires_grad_()
    levels = torch.tensor([0.2, 0.8], dtype=torch.float64)
    data = Shots(levels[:, None, None, None, None].expand(2, 32, 1, 4, 4), shots(2, 32).y, rng.key(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(100):
        optimizer.zero_grad()
        model.loss(data.at(step)).backward()
        optimizer.step()
    with torch.no_grad():
        drawn = model.sample(torch.arange(2).repeat_interleave(20), rng.key(1)).unflatten(0, (2, 20))
    torch.testing.assert_close(drawn.mean((1, 2, 3, 4)), levels, atol=0.08, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 30}, "size=30: .*a multiple of 4"),
        ({"channels": 1}, "channels=1"),
        ({"maps": 0}, "maps=0"),
        ({"sample_steps": 0}, "sample_steps=0"),
        ({"context_dropout": 1.0}, "context_dropout=1.0: .*to below 1"),
        ({"guidance": -1.0}, "guidance=-1.0"),
        ({"guidance": math.nan}, "guidance=nan"),
        ({"context_dropout": 0.0}, "model.guidance=1.5 needs a null row"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(MetagenError, match=message) as error:
        partial(Flow, **arguments)()
    assert "\n" not in str(error.value)
