"""Learners against closed forms on a quadratic, and against the rules of their papers."""

import pytest
import torch
from compositions import maml, reptile
from conftest import build_pair, random_episodes
from torch import nn

from metagen.core.episode import Episode, Shots
from metagen.core.learner import Learner
from metagen.core.model import Model
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.vectorize import vmap
from metagen.learners.rules import Adam, LearnedRates, Sgd
from metagen.learners.starts import ClassMean

DIM, RATE = 4, 0.1


class Quadratic(Model):
    """L(w; shots) = 1/2 (w - m)' A (w - m) with m the mean of the images."""

    kind = "classify"

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(DIM, DIM, dtype=torch.float64, generator=generator)
        self.w = nn.Parameter(torch.randn(DIM, dtype=torch.float64, generator=generator))
        self.curvature = root @ root.T / DIM + torch.eye(DIM, dtype=torch.float64)

    def loss(self, shots):
        gap = self.w - shots.x.reshape(-1, DIM).mean(0)
        return 0.5 * gap @ self.curvature @ gap


def quadratic_episode():
    generator = torch.Generator().manual_seed(1)

    def shots(k):
        x = torch.randn(2, k, 1, 1, DIM, dtype=torch.float64, generator=generator)
        return Shots(x, torch.zeros(2, k, dtype=torch.int64), rng.key(0))

    return Episode(shots(3), shots(5), torch.tensor([0, 1]))


def bound(learner):
    objective = Objective(Quadratic())
    learner.bind(objective, 2)
    return learner, objective


def meta_grad(learner, objective, episode, now=0):
    params = objective.params()
    (grad,) = torch.autograd.grad(learner.meta_loss(objective, params, episode, now), [params["w"]])
    return grad


def closed_form(objective, episode, steps):
    a = episode.support.x.reshape(-1, DIM).mean(0)
    b = episode.query.x.reshape(-1, DIM).mean(0)
    curvature = objective.model.curvature
    contraction = torch.linalg.matrix_power(torch.eye(DIM, dtype=torch.float64) - RATE * curvature, steps)
    w = objective.params()["w"].detach()
    phi = a + contraction @ (w - a)
    return phi, contraction, curvature @ (phi - b)


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
def test_maml_equals_its_closed_form(steps):
    learner, objective = bound(maml(Sgd(RATE), steps))
    episode = quadratic_episode()
    phi, contraction, query_grad = closed_form(objective, episode, steps)
    adapted = learner.adapt(objective, objective.params(), episode.support)["w"]
    torch.testing.assert_close(adapted, phi, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        meta_grad(learner, objective, episode), contraction.T @ query_grad, rtol=1e-11, atol=1e-12
    )


def test_fomaml_is_the_query_gradient_at_the_adapted_weights():
    learner, objective = bound(maml(Sgd(RATE), 3, first_order=True))
    episode = quadratic_episode()
    _, contraction, query_grad = closed_form(objective, episode, 3)
    grad = meta_grad(learner, objective, episode)
    torch.testing.assert_close(grad, query_grad, rtol=1e-11, atol=1e-12)
    assert not torch.allclose(grad, contraction.T @ query_grad), "and that is not MAML's"


@pytest.mark.parametrize("model", ["conv4", "vae"])
def test_fomaml_is_the_query_gradient_of_a_network(model):
    _, learner, objective = build_pair(model, "fomaml")
    episode = Episode(*(_first(part) for part in random_episodes(tasks=1)[:2]), torch.arange(3))
    params = objective.params()
    loss = learner.meta_loss(objective, params, episode)
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    phi = learner.adapt(objective, params, episode.support, now=0)
    phi = {n: p.detach().requires_grad_() for n, p in phi.items()}
    expected = torch.autograd.grad(objective.loss(phi, episode.query), list(phi.values()), allow_unused=True)
    for name, grad, want in zip(params, grads, expected, strict=True):
        if want is not None and name in objective.model.per_class:
            want = want.sum_to_size(params[name].shape)
        assert (grad is None) == (want is None)
        if grad is not None:
            torch.testing.assert_close(grad, want, rtol=1e-10, atol=1e-12)


def _first(shots):
    return Shots(*(field[0] for field in shots))


def test_reptile_moves_theta_by_epsilon_towards_phi():
    learner, objective = bound(reptile(Sgd(RATE), 4))
    episode = quadratic_episode()
    params, epsilon = objective.params(), 0.3
    start = params["w"].detach().clone()
    phi = learner.adapt(objective, params, episode.join())["w"].detach()
    optimizer = torch.optim.SGD([objective.model.w], lr=epsilon)
    learner.meta_loss(objective, params, episode).backward()
    optimizer.step()
    torch.testing.assert_close(objective.model.w.detach(), start + epsilon * (phi - start))


def test_reptile_averages_tasks_and_rows_of_the_context():
    _, learner, objective = build_pair("vae", "reptile")
    episodes = random_episodes()
    params = objective.params()
    vmap(lambda e: learner.meta_loss(objective, params, e))(episodes).mean().backward()
    with torch.no_grad():
        phi = vmap(lambda e: learner.adapt(objective, params, e.join(), now=0))(episodes)
    for name in learner.names:
        mean = phi[name].mean(0)
        if name in objective.model.per_class:
            mean = mean.mean(0, keepdim=True)
        torch.testing.assert_close(params[name].grad, params[name].detach() - mean, rtol=1e-9, atol=1e-11)


def test_meta_sgd_with_its_starting_rates_is_maml():
    episode = quadratic_episode()
    plain, objective = bound(maml(Sgd(RATE), 3))
    meta_sgd, same = bound(maml(LearnedRates(RATE), 3))
    torch.testing.assert_close(meta_grad(plain, objective, episode), meta_grad(meta_sgd, same, episode))
    loss = meta_sgd.meta_loss(same, same.params(), episode)
    (rates,) = torch.autograd.grad(loss, list(meta_sgd.parameters()))
    assert rates.shape == (DIM,)
    assert rates.abs().min() > 0, "the rates learn, too"


def test_anil_of_all_layers_is_maml():
    episode = quadratic_episode()
    plain, objective = bound(maml(Sgd(RATE), 3))
    anil, same = bound(maml(Sgd(RATE), 3, adapts=["w"]))
    assert torch.equal(meta_grad(plain, objective, episode), meta_grad(anil, same, episode))


@pytest.mark.parametrize("model", ["conv4", "basenet", "vae"])
def test_anil_moves_the_head_alone(model):
    model, learner, objective = build_pair(model, "anil")
    support = _first(random_episodes().support)
    before = objective.for_ways(objective.params(), 3)
    after = learner.adapt(objective, objective.params(), support)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved == set(learner.names)
    assert 0 < len(moved) < len(before)


def test_adam_rule_equals_torch_adam():
    learner, objective = bound(maml(Adam(0.05), 7))
    episode = quadratic_episode()
    mine = learner.adapt(objective, objective.params(), episode.support)["w"]
    model = Quadratic()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(7):
        optimizer.zero_grad()
        model.loss(episode.support).backward()
        optimizer.step()
    torch.testing.assert_close(mine, model.w, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("model", ["conv4", "vae"])
def test_transfer_pretrains_on_the_training_classes_and_starts_from_their_mean(model):
    model, learner, objective = build_pair(model, "transfer", classes=8)
    assert isinstance(learner.start, ClassMean)
    episode = Episode(*(_first(part) for part in random_episodes()[:2]), torch.tensor([5, 0, 7]))
    params = objective.params()
    learner.meta_loss(objective, params, episode).backward()
    for name in model.per_class:
        table = dict(learner.named_parameters())[f"start.tables.{name.replace('.', '/')}"]
        assert table.shape[0] == 8
        used = table.grad.abs().reshape(8, -1).sum(1) > 0
        if model.kind == "generate":
            assert used.nonzero().flatten().tolist() == [0, 5, 7], "only the rows of the episode's classes"
        start = learner.begin(objective, params, episode.support).params[name]
        torch.testing.assert_close(start, table.mean(0, keepdim=True).expand_as(start))


@pytest.mark.parametrize("shots", [1, 4])
def test_amortized_is_invariant_to_the_order_of_the_support(shots):
    _, learner, objective = build_pair("vae", "amortized")
    support = _first(random_episodes(shots=shots).support)
    flipped = support._replace(x=support.x.flip(1))
    one, two = (learner.adapt(objective, objective.params(), s)["context"] for s in (support, flipped))
    torch.testing.assert_close(one, two)


def test_amortized_learns_from_every_number_of_images_and_from_none():
    """Each step reads the first few images; without any, the model's own row is what is learned."""
    _, learner, objective = build_pair("vae", "amortized", extra=["learner.start.any_shots=true"])
    support = random_episodes(shots=4).support
    one = Shots(*(leaf[0] for leaf in support))
    counts = []
    for step in range(200):
        seen = learner.seen(one, step)
        counts.append(seen.y.shape[-1])
        assert torch.equal(seen.x, one.x[:, : counts[-1]])
    assert all(20 < counts.count(k) < 65 for k in range(5))
    params, task = objective.params(), Episode(one, one, torch.arange(3))
    for count in (0, 4):
        loss = learner.meta_loss(objective, params, task, counts.index(count))
        (row,) = torch.autograd.grad(loss, [params["context"]], allow_unused=True)
        assert (row is not None and bool(row.any())) == (count == 0)


def test_a_chain_reads_what_its_start_reads():
    extra = ["learner.start.any_shots=true"]
    _, amortized, objective = build_pair("vae", "amortized", extra=extra)
    _, chain, chained = build_pair("vae", "chain", extra=[*extra, "learner.steps=0"])
    part = Shots(*(leaf[0] for leaf in random_episodes(shots=4).support))
    task = Episode(part, part, torch.arange(3))
    for step in range(6):
        losses = [
            learner.meta_loss(o, o.params(), task, step)
            for learner, o in ((amortized, objective), (chain, chained))
        ]
        assert torch.equal(*losses)


def test_a_generator_takes_any_number_of_ways():
    for name in ("maml", "amortized", "chain", "transfer"):
        _, learner, objective = build_pair("vae", name)
        for ways in (1, 2, 7):
            support = _first(random_episodes(ways=ways).support)
            assert learner.adapt(objective, objective.params(), support, 1)["context"].shape[0] == ways


def test_wrong_number_of_outputs_says_what_to_set():
    _, learner, objective = build_pair("conv4", "maml", ways=3)
    support = _first(random_episodes(ways=5).support)
    with pytest.raises(MetagenError, match=r"model\.ways=5"):
        learner.adapt(objective, objective.params(), support)


def test_bad_arguments():
    with pytest.raises(MetagenError, match="above 0"):
        Sgd(0)
    with pytest.raises(MetagenError, match="steps=-1"):
        Learner(-1)
    with pytest.raises(MetagenError, match="patterns"):
        maml(Sgd(RATE), adapts="heads")
    with pytest.raises(MetagenError, match="no such parameters"):
        bound(maml(Sgd(RATE), adapts=["context"]))


@pytest.mark.parametrize("learner", ["maml", "meta_sgd"])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_recomputed_steps_give_the_same_meta_gradient(learner, every):
    _, learner, objective = build_pair("vae", learner)
    learner.steps = 5
    episodes = random_episodes()
    params = objective.params()
    leaves = [*params.values(), *learner.parameters()]

    def gradient():
        loss = vmap(lambda e: learner.meta_loss(objective, params, e))(episodes).mean()
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    plain = gradient()
    learner.gradient.checkpoint_steps = every
    for a, b in zip(plain, gradient(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_minibatch_is_distinct_images_of_every_class():
    shots = random_episodes(tasks=1, shots=6).support
    shots = Shots(*(field[0] for field in shots))
    small = shots.minibatch(4)
    assert small.x.shape[:2] == small.y.shape == (3, 4)
    for ways in range(3):
        found = [[torch.equal(x, y) for y in shots.x[ways]].index(True) for x in small.x[ways]]
        assert len(set(found)) == 4
    assert not torch.equal(small.x, shots.at(1).minibatch(4).x)
    assert shots.minibatch(6) is shots
