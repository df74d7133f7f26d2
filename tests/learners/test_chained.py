"""A start that reads the support set, and after it every other part: none is lost."""

import pytest
import torch
from compositions import imaml, maml, maml_plus_plus, reptile
from conftest import random_shots
from toys_of_parts import SIZE, ToyGenerator

from metagen.core.episode import Episode
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.hypernet import HyperNet
from metagen.learners.meta_learner import MetaLearner
from metagen.learners.modulations import FilmModulation
from metagen.learners.readers import Encoder
from metagen.learners.rules import Adam, Sgd
from metagen.learners.schedules import Linear
from metagen.learners.starts import Theta

RATE = 0.1


def bound(learner):
    torch.manual_seed(0)
    objective = Objective(ToyGenerator().double())
    learner.bind(objective, 6)
    return learner.double(), objective


def task():
    support, query = (random_shots(1, 3, 2, seed, size=SIZE) for seed in (0, 1))
    return Episode(*(type(s)(*(f[0] for f in s)) for s in (support, query)), torch.arange(3))


def gradient(loss, params):
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


def encoded(objective, params, shots):
    """What the encoder writes, in place of the table."""
    return {**params, **objective.call("encode", params, shots)}


def test_multi_step_loss_after_an_encoder_is_the_weighted_sum_of_chains_of_every_length():
    """MAML++: before, the chain took its loss at the end alone."""
    schedules = {"msl_steps": 100, "second_order_after": 0}
    learner, objective = bound(maml_plus_plus(Sgd(RATE), 3, start=Encoder(), **schedules))
    episode, params = task(), objective.params()
    want = 0
    for steps, weight in ((1, 0.25), (2, 0.25), (3, 0.5)):
        phi = encoded(objective, params, episode.support)
        for index in range(steps):
            names = [n for n in phi if not n.startswith("reader.")]
            loss = objective.loss(phi, episode.support.at(index))
            grads = torch.autograd.grad(loss, [phi[n] for n in names], create_graph=True)
            phi |= {n: phi[n] - RATE * g for n, g in zip(names, grads, strict=True)}
        want = want + weight * objective.query_loss(phi, episode)
    got = learner.meta_loss(objective, params, episode, 25)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(got, params), gradient(want, params), rtol=1e-9, atol=1e-12)
    last = learner.meta_loss(objective, params, episode, 100)
    assert abs(last - got) > 1e-4, "which is not the loss at the end"


def test_reptile_after_an_encoder_teaches_it_where_the_steps_arrive():
    learner, objective = bound(reptile(Sgd(RATE), 4, start=Encoder()))
    episode, params = task(), objective.params()
    shots = episode.join()
    start = encoded(objective, params, shots)
    phi = {n: p.detach().requires_grad_() for n, p in start.items()}
    names = [n for n in phi if not n.startswith("reader.")]
    for index in range(4):
        grads = torch.autograd.grad(objective.loss(phi, shots.at(index)), [phi[n] for n in names])
        phi |= {n: (phi[n] - RATE * g).detach().requires_grad_() for n, g in zip(names, grads, strict=True)}
    share = {n: 1 / 3 if n == "context" else 1.0 for n in names}
    want = 0.5 * sum(share[n] * (start[n] - phi[n].detach()).square().sum() for n in names)
    got = learner.meta_loss(objective, params, episode)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gradient(got, params), gradient(want, params), rtol=1e-9, atol=1e-12)
    reader = torch.autograd.grad(learner.meta_loss(objective, params, episode), [params["reader.weight"]])[0]
    assert reader.abs().max() > 1e-6, "the encoder learns"


@pytest.mark.slow
@pytest.mark.parametrize("start", [Encoder, lambda: HyperNet(FilmModulation(), SIZE, filters=2, embedding=5)])
def test_imaml_after_a_start_that_reads_is_the_derivative_of_its_optimum(start):
    """On the rows alone, whose optimum many steps reach: finite differences of the whole adaptation."""
    learner, objective = bound(imaml(Sgd(1.0), 400, strength=1.0, cg_steps=9, adapts="tables", start=start()))
    episode = task()
    leaves = {**objective.params(), **dict(learner.named_parameters())}
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for p in leaves.values():
            p += 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=generator)
    loss = learner.meta_loss(objective, objective.params(), episode)
    grad = gradient(loss, leaves)
    way, h = torch.randn(grad.shape, dtype=grad.dtype, generator=generator), 1e-5

    def value(scale):
        at = 0
        with torch.no_grad():
            for p in leaves.values():
                p += scale * h * way[at : at + p.numel()].view_as(p)
                at += p.numel()
        return learner.meta_loss(objective, objective.params(), episode).item()

    slope = (value(1) - value(-2)) / (2 * h)
    assert (grad @ way).item() == pytest.approx(slope, rel=1e-6)


def test_two_lengths_of_one_way_are_one_way():
    whole, objective = bound(maml(Sgd(RATE), 5, start=Encoder()))
    episode, params = task(), objective.params()
    states = list(whole.path(objective, params, episode.support, [0, 2, 5], 0))
    start = encoded(objective, params, episode.support)
    torch.testing.assert_close(states[0].params["context"], start["context"])
    for state, steps in zip(states, (0, 2, 5), strict=True):
        phi = whole.adapt(objective, params, episode.support, steps)
        assert all(torch.equal(phi[n], p) for n, p in state.params.items())


def test_the_number_of_steps_may_be_scheduled():
    learner, objective = bound(MetaLearner(Theta(), Adam(0.05), steps=Linear(1, 4, 30)))
    assert [learner.steps_at(now) for now in (0, 10, 30, None)] == [1, 2, 4, 4]
    episode, params = task(), objective.params()
    for now, steps in ((0, 1), (10, 2), (99, 4)):
        phi = learner.adapt(objective, params, episode.support, steps)
        want = objective.query_loss(phi, episode)
        torch.testing.assert_close(learner.meta_loss(objective, params, episode, now), want)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: maml(None, 0), "without a rule adapts to nothing: use learner/rule=sgd"),
        (lambda: MetaLearner(Encoder(), steps=3), "rule=null takes no steps.*use"),
        (lambda: MetaLearner(Encoder(), test_rate=0.1), "rule=null takes no steps.*use"),
        (lambda: reptile(Sgd(RATE), 2, start=Encoder(any_shots=True)), "draws its own: use"),
    ],
)
def test_what_makes_no_sense_gets_one_line(make, message):
    with pytest.raises(MetagenError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
