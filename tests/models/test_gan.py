"""The Wasserstein GAN against its two separate losses, closed forms, and a toy that Reptile learns."""

import pytest
import torch
from torch import nn

from metagen.core.episode import Episode, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.vectorize import vmap
from metagen.learners.gradients import Unrolled
from metagen.learners.meta_learner import MetaLearner
from metagen.learners.meta_losses import Displacement
from metagen.learners.rules import Adam
from metagen.learners.starts import Theta
from metagen.models.gan import GAN

PLAYERS = ("generator", "critic")


def small(**arguments):
    torch.manual_seed(0)
    model = GAN(**{"size": 8, "features": 4, "latent": 4, "channels": 4, "hidden": 8} | arguments).double()
    model.context.data = torch.randn(2, model.context.shape[1], dtype=torch.float64)
    return model


def shots(n=2, k=3, size=8, key=0):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, k, 1, size, size, dtype=torch.float64, generator=generator)
    return Shots(x, torch.arange(n)[:, None].expand(n, k), rng.key(key))


def parts(model, data):
    """Images, samples, mixtures of both, and the critic's half of the rows."""
    x, y = data.x.flatten(0, 1), data.y.flatten()
    fake = model.sample(y, data.key)
    u = rng.uniform(rng.fold_in(data.key, 0), (len(x), 1, 1, 1), x.dtype)
    return x, fake, x + u * (fake.detach() - x), model.context[y].chunk(2, -1)[1]


def losses(model, data):
    """L_G and L_D, written with plain autograd."""
    x, fake, mixed, c = parts(model, data)
    mixed.requires_grad_()
    slope = torch.autograd.grad(model.critic(mixed, c).sum(), mixed, create_graph=True)[0]
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    drawn, real = model.critic(fake, c).mean(), model.critic(x, c).mean()
    return {"generator": -drawn, "critic": drawn - real + model.gp_weight * penalty}


def owned(model, player):
    return [p for name, p in model.named_parameters() if name.startswith(player)]


def test_loss_has_the_gradient_of_each_players_own_loss():
    model, data = small(), shots()
    separate = losses(model, data)
    half = model.context.shape[1] // 2
    rows = {"generator": slice(0, half), "critic": slice(half, None)}
    surrogate = model.loss(data)
    assert surrogate.item() == pytest.approx(separate["critic"].item(), rel=1e-10)
    for player in PLAYERS:
        leaves = [*owned(model, player), model.context]
        got = torch.autograd.grad(surrogate, leaves, retain_graph=True, materialize_grads=True)
        want = torch.autograd.grad(separate[player], leaves, retain_graph=True, materialize_grads=True)
        own = rows[player]
        for g, w in [*zip(got[:-1], want[:-1], strict=True), (got[-1][:, own], want[-1][:, own])]:
            assert torch.allclose(g, w, rtol=1e-8, atol=1e-12)
        assert sum(w.norm() for w in want[:-1]) > 0
        assert want[-1][:, own].norm() > 0


@pytest.mark.parametrize("player", PLAYERS)
def test_second_order_is_that_of_each_player_alone(player):
    """What a second-order learner differentiates: d grad L_P / d P, with the other player held."""
    model, data = small(), shots()
    leaves = owned(model, player)
    directions = [torch.randn_like(p) for p in leaves]

    def gradients(**how):
        return torch.autograd.grad(model.loss(data), leaves, materialize_grads=True, **how)

    along = sum((g * d).sum() for g, d in zip(gradients(create_graph=True), directions, strict=True))
    exact = torch.autograd.grad(along, leaves, materialize_grads=True)
    moved, h = [], 1e-6
    for sign in (h, -2 * h):
        with torch.no_grad():
            for p, d in zip(leaves, directions, strict=True):
                p += sign * d
        moved.append(gradients())
    error = size = 0.0
    for up, down, e in zip(*moved, exact, strict=True):
        error, size = error + ((up - down) / (2 * h) - e).norm(), size + e.norm()
    assert size > 0
    assert error < 1e-5 * size


class Linear(nn.Module):
    """D(x) = <w, x>, whose gradient is w everywhere."""

    def __init__(self, pixels):
        super().__init__()
        self.w = nn.Parameter(torch.randn(pixels, dtype=torch.float64))

    def forward(self, x, c):
        return x.flatten(1) @ self.w


def test_penalty_of_a_linear_critic():
    model, data = small(gp_weight=3.0), shots()
    model.critic = Linear(64)
    x, fake, _, _ = parts(model, data)
    w = model.critic.w
    want = (fake.mean(0) - x.mean(0)).flatten() @ w + 3 * (w.norm() - 1) ** 2
    assert model.loss(data).item() == pytest.approx(want.item(), rel=1e-10)


def test_penalty_of_a_flat_critic_has_a_derivative():
    model = small()
    for p in model.critic.parameters():
        p.data.zero_()
    loss = model.loss(shots())
    assert loss.item() == pytest.approx(model.gp_weight, rel=1e-4)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.critic.parameters())


class Still(nn.Module):
    """A generator of one image."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, z, c):
        return self.image.expand(len(z), 1, *self.image.shape)


def test_critic_reaches_the_optimum_between_two_images():
    """Where all images are x and all samples g, at distance d, min_D L_D = -d - d^2 / (4 lambda).

    On the line between them D has slope s, so L_D = -s d + lambda (s - 1)^2, least at s = 1 + d / (2 lambda).
    """
    model = small(channels=8, hidden=16)
    data = shots(1, 8)
    x, other = data.x[0, 0, 0].clone(), torch.rand(8, 8, dtype=torch.float64)
    data = data._replace(x=x.expand(1, 8, 1, 8, 8))
    model.generator = Still(other)
    d = (x - other).norm().item()
    best = -d - d**2 / (4 * model.gp_weight)
    optimizer = torch.optim.Adam(model.critic.parameters(), lr=1e-2)
    values = []
    for step in range(120):
        optimizer.zero_grad()
        loss = model.loss(data.at(step))
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    reached = sum(values[-30:]) / 30
    assert values[0] > 0
    assert best - 0.02 * d < reached < best + 0.1 * d


def test_samples_are_pure_in_the_key_and_show_the_generators_half_of_the_row():
    model, y = small().requires_grad_(False), torch.tensor([0, 1, 1])
    a = model.sample(y, rng.key(5))
    assert a.shape == (3, 1, 8, 8)
    assert a.min() >= 0
    assert a.max() <= 1
    assert torch.equal(a, model.sample(y, rng.key(5)))
    assert not torch.allclose(a, model.sample(y, rng.key(6)))
    assert not torch.allclose(a[1], a[2]), "every sample has a noise of its own"
    model.context[1, 2:] += 1
    assert torch.equal(a, model.sample(y, rng.key(5))), "the critic's half"
    model.context[1, :2] += 1
    b = model.sample(y, rng.key(5))
    assert torch.equal(a[0], b[0])
    assert not torch.allclose(a[1], b[1])


def test_gradient_of_a_class_stays_in_its_row():
    model = small()
    model.context = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
    model.loss(shots(2)).backward()
    assert (model.context.grad != 0).all(1).tolist() == [True, True, False]


@pytest.mark.parametrize("size", [8, 28, 32])
def test_sizes(size):
    model, data = small(size=size), shots(size=size)
    assert model.loss(data).isfinite()
    assert model.sample(torch.tensor([0]), rng.key(0)).shape == (1, 1, size, size)


BAD = {"size": 30, "features": 5, "latent": 0, "channels": 0, "hidden": -1, "gp_weight": -1.0}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    with pytest.raises(MetagenError, match=name) as error:
        GAN(**{name: BAD[name]})
    assert "\n" not in str(error.value)


def bars(positions, k, seed):
    """Tasks of one class each: a bright column of varying brightness at its position."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.rand(len(positions), 1, k, 1, 8, 8, generator=generator)
    for task, column in enumerate(positions):
        x[task, ..., column] += 0.6 + 0.3 * torch.rand(k, 1, 1, generator=generator)
    return Shots(x, torch.zeros(len(positions), 1, k, dtype=torch.int64), rng.key(seed, 1).expand(1))


def distance(objective, learner, data):
    """How far the mean sample is from the mean image after adaptation, per pixel."""
    task = Shots(data.x[0], data.y[0], data.key[0])
    phi = learner.adapt(objective, objective.params(), task)
    drawn = objective.call("sample", phi, torch.zeros(32, dtype=torch.int64), rng.key(9))
    return (drawn.mean(0) - task.x.mean((0, 1))).abs().mean().item()


@pytest.mark.slow
def test_reptile_learns_to_draw_a_column_that_it_never_saw():
    model = small(channels=4, hidden=16).float()
    model.context.data = torch.zeros(1, 4)
    objective = Objective(model)
    learner = MetaLearner(Theta(), Adam(5e-3, 0.0, 0.9), Unrolled(True), Displacement(), steps=5)
    learner.bind(objective, 7)
    unseen = bars([3], 4, seed=1000)
    before = distance(objective, learner, unseen)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(40):
        data = bars([(0, 1, 2, 4, 5, 6, 7)[step % 7]], 4, seed=step)
        optimizer.zero_grad()
        episode, params = Episode(data, data, torch.zeros(1, 1)), objective.params()
        vmap(lambda e, p=params: learner.meta_loss(objective, p, e))(episode).mean().backward()
        optimizer.step()
    after = distance(objective, learner, unseen)
    assert after < 0.75 * before
