"""Valid model x learner pairs, found by globbing conf: exact, pure, and correctly refused.

All but a sample, in which each model and each learner is met, are ``slow``.
"""

import pytest
import torch
from conftest import (
    FITTING,
    META_TRAINED,
    PAIRS,
    REFUSED,
    SURROGATE,
    build_pair,
    choices,
    random_episodes,
    rest_slow,
    sample,
)

from metagen.functional.vectorize import loop, vmap
from metagen.learners.gradients import Unrolled

SIZE = 16
"""Of the images: what holds for a pair holds at every size, and this one takes a third of the time."""


def exact(pair):
    """Whether the meta-gradient is that of a function: where parts are held constant, the rule has a test."""
    return not (FITTING[pair].surrogate or pair[0] in SURROGATE)


# The exact ones first: pytest runs those tests together whose parameters are equally many-th.
TRAINED = sorted(META_TRAINED, key=lambda pair: not exact(pair))
EXACT = [pair for pair in TRAINED if exact(pair)]
EXACT_SAMPLE = [pair for pair in sample(TRAINED) if exact(pair)]


def episodes_for(learner, seed=0, size=SIZE):
    episodes = random_episodes(seed=seed, size=size)
    if learner.few_shot:
        return episodes

    def one_row(shots):
        return shots._replace(x=shots.x.flatten(1, 2)[:, None], y=shots.y.flatten(1, 2)[:, None])

    return episodes._replace(support=one_row(episodes.support), query=one_row(episodes.query))


def leaves_of(objective, learner):
    return {**objective.params(), **dict(learner.named_parameters())}


def meta_gradient(over, objective, learner, episodes):
    params, leaves = objective.params(), leaves_of(objective, learner)
    loss = over(lambda episode: learner.meta_loss(objective, params, episode))(episodes).mean()
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zeros = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves.values(), grads, strict=True)]
    return loss.detach(), torch.cat([g.flatten() for g in zeros])


@pytest.fixture(scope="module")
def by_vmap(request):
    """The names of a pair, its loss and its meta-gradient by vmap: computed once for the tests of a pair."""
    _, learner, objective = build_pair(*request.param, images=(1, SIZE))
    return request.param, *meta_gradient(vmap, objective, learner, episodes_for(learner))


@pytest.mark.parametrize("by_vmap", rest_slow(TRAINED, sample(TRAINED)), indirect=True, ids="-".join)
def test_vmap_equals_loop(by_vmap):
    pair, loss_vmap, grad_vmap = by_vmap
    _, learner, objective = build_pair(*pair, images=(1, SIZE))
    loss_loop, grad_loop = meta_gradient(loop, objective, learner, episodes_for(learner))
    assert grad_loop.norm() > 0
    assert abs(loss_vmap / loss_loop - 1) < 1e-10
    assert (grad_vmap - grad_loop).norm() / grad_loop.norm() < 1e-10


@pytest.mark.parametrize("by_vmap", rest_slow(EXACT, EXACT_SAMPLE), indirect=True, ids="-".join)
def test_meta_gradient_equals_finite_differences(by_vmap):
    pair, _, grad = by_vmap
    _, learner, objective = build_pair(*pair, images=(1, SIZE))
    episodes, leaves = episodes_for(learner), leaves_of(objective, learner)
    if isinstance(learner.gradient, Unrolled) and learner.gradient.first_order:
        learner.gradient.first_order = False
        _, grad = meta_gradient(vmap, objective, learner, episodes)
    torch.manual_seed(1)
    direction = torch.randn_like(grad)
    h = 1e-9  # so small that no ReLU or pooling of the inner loop switches in between

    def value(sign):
        start = 0
        with torch.no_grad():
            for p in leaves.values():
                p += sign * h * direction[start : start + p.numel()].view_as(p)
                start += p.numel()
            params = objective.params()
            return vmap(lambda e: learner.meta_loss(objective, params, e))(episodes).mean()

    up = value(+1)
    down = value(-2)
    # a loss of hundreds of nats is known to eps times its size only, which 1 / h magnifies
    rounding = 4 * torch.finfo(up.dtype).eps * abs(up.item()) / h
    slope = ((up - down) / (2 * h)).item()
    assert torch.dot(grad, direction).item() == pytest.approx(slope, rel=1e-4, abs=rounding)


@pytest.mark.parametrize("pair", rest_slow(PAIRS, sample(PAIRS)), ids="-".join)
def test_adaptation_is_pure(pair):
    model, learner, objective = build_pair(*pair, images=(1, SIZE))
    before = {n: v.clone() for n, v in {**model.state_dict(), **learner.state_dict()}.items()}
    episodes = episodes_for(learner)
    with torch.no_grad():
        adapted = vmap(lambda s: learner.adapt(objective, objective.params(), s, 3))(episodes.support)
        losses = vmap(objective.loss)(adapted, episodes.query)
    assert losses.isfinite().all()
    assert all(torch.equal(v, before[n]) for n, v in {**model.state_dict(), **learner.state_dict()}.items())


@pytest.mark.parametrize("pair", rest_slow(PAIRS, sample(PAIRS)), ids="-".join)
def test_evaluation_builds_no_graph(pair):
    _, learner, objective = build_pair(*pair, images=(1, SIZE))
    with torch.inference_mode():
        phi = learner.adapt(objective, objective.params(), _first(episodes_for(learner).support), 2)
        assert not any(p.grad_fn is not None for p in phi.values())
        assert objective.loss(phi, _first(episodes_for(learner).query)).isfinite()


def _first(shots):
    return type(shots)(*(field[0] for field in shots))


def test_every_learner_fits_some_model():
    assert {learner for _, learner in PAIRS} == set(choices("learner"))
    assert {model for model, _ in PAIRS} == set(choices("model"))


def test_every_learner_and_every_model_is_in_the_sample():
    for pairs in (PAIRS, TRAINED):
        for place in (0, 1):
            assert {pair[place] for pair in sample(pairs)} == {pair[place] for pair in pairs}


@pytest.mark.parametrize("pair", REFUSED, ids="-".join)
def test_refusal_names_what_would_fit(pair):
    assert "\n" not in REFUSED[pair]
    assert "=" in REFUSED[pair]
    assert "use " in REFUSED[pair]
