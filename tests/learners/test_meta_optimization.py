"""The MAML family against theory: closed forms on a quadratic, and where two methods coincide."""

import pytest
import torch
from compositions import imaml, maml, maml_plus_plus
from conftest import build_pair, random_episodes
from test_oracles import bound, closed_form, meta_grad, quadratic_episode
from torch import nn

from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.vectorize import vmap
from metagen.learners.gradients import Unrolled
from metagen.learners.implicit import Implicit, conjugate_gradients
from metagen.learners.meta_curvature import MetaCurvature
from metagen.learners.meta_losses import MultiStep
from metagen.learners.rules import Adam, LayerStepRates, LearnedRates, Momentum, Sgd
from metagen.learners.schedules import Linear, Until

RATE, STEPS = 0.1, 3


def value_and_gradient(learner, objective, episodes):
    params = objective.params()
    loss = vmap(lambda e: learner.meta_loss(objective, params, e))(episodes).mean()
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
    return torch.cat([loss.detach()[None], *(g.flatten() for g in grads)])


def on_conv4(make, seed=0):
    model, _, _ = build_pair("conv4", "maml")
    learner, objective = make(), Objective(model)
    learner.bind(objective, 8)
    return value_and_gradient(learner.double(), objective, random_episodes(seed=seed))


def assert_same(make, reference):
    a, b = on_conv4(make), on_conv4(reference)
    assert (a - b).norm() < 1e-10 * b.norm()


def plain_maml():
    return maml(Sgd(RATE), STEPS)


def fomaml():
    return maml(Sgd(RATE), STEPS, first_order=True)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_imaml_in_the_limit_equals_its_closed_form(strength):
    learner, objective = bound(imaml(Sgd(0.2), steps=400, strength=strength, cg_steps=4))
    episode = quadratic_episode()
    a = episode.support.x.reshape(-1, 4).mean(0)
    b = episode.query.x.reshape(-1, 4).mean(0)
    curvature, w = objective.model.curvature, objective.params()["w"].detach()
    eye = torch.eye(4, dtype=torch.float64)
    phi = torch.linalg.solve(curvature + strength * eye, curvature @ a + strength * w)
    want = torch.linalg.solve(eye + curvature / strength, curvature @ (phi - b))
    torch.testing.assert_close(meta_grad(learner, objective, episode), want, rtol=1e-9, atol=1e-11)
    params = objective.params()
    value = learner.meta_loss(objective, params, episode)
    torch.testing.assert_close(value, objective.loss({"w": phi}, episode.query), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_implicit_gradient_is_the_derivative_of_the_optimum_for_parameters_that_do_not_move():
    """On the real network, with the head alone moving, against finite differences of the whole adaptation."""
    model, _, _ = build_pair("conv4", "maml")
    learner, objective = imaml(Sgd(0.1), 60, strength=4.0, cg_steps=20, adapts="head"), Objective(model)
    learner.bind(objective, 8)
    episodes = random_episodes()
    gradient = value_and_gradient(learner, objective, episodes)[1:]
    torch.manual_seed(1)
    direction, h = torch.randn_like(gradient), 1e-9

    def value(scale):
        with torch.no_grad():
            nn.utils.vector_to_parameters(start + scale * h * direction, model.parameters())
            params = objective.params()
            return vmap(lambda e: learner.meta_loss(objective, params, e))(episodes).mean().item()

    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    slope = (value(1) - value(-1)) / (2 * h)
    assert torch.dot(gradient, direction).item() == pytest.approx(slope, rel=1e-3)


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_unknowns():
    torch.manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64)
    a, b = root @ root.T + torch.eye(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    x = conjugate_gradients(
        lambda v: {"p": (a @ torch.cat([v["p"], v["q"]]))[:4], "q": (a @ torch.cat([v["p"], v["q"]]))[4:]},
        {"p": b[:4], "q": b[4:]},
        6,
    )
    torch.testing.assert_close(torch.cat([x["p"], x["q"]]), torch.linalg.solve(a, b))
    done = conjugate_gradients(lambda v: v, {"p": torch.zeros(2)}, 5)
    assert torch.equal(done["p"], torch.zeros(2))


def test_fomaml_differs_from_maml_as_the_hessian_says():
    """After one step MAML's gradient is (I - alpha H) times FOMAML's, with H the support loss's Hessian."""
    (one, objective), (first, _) = (bound(maml(Sgd(RATE), 1, first_order=f)) for f in (False, True))
    episode = quadratic_episode()
    g = meta_grad(first, objective, episode)
    hessian = torch.func.hessian(lambda w: objective.loss({"w": w}, episode.support))(
        objective.params()["w"].detach()
    )
    torch.testing.assert_close(meta_grad(one, objective, episode), g - RATE * hessian @ g)
    assert torch.linalg.vector_norm(hessian @ g) > 0.1 * torch.linalg.vector_norm(g)


def test_meta_sgd_with_frozen_equal_rates_equals_maml():
    def frozen():
        learner = maml(LearnedRates(RATE), STEPS)
        learner.rule.requires_grad_(False)
        return learner

    assert_same(frozen, plain_maml)


def test_anil_with_all_layers_equals_maml():
    assert_same(lambda: maml(Sgd(RATE), STEPS, adapts=["body.*", "readout.*"]), plain_maml)


@pytest.mark.parametrize(
    "rule",
    [lambda: LayerStepRates(RATE, STEPS), lambda: LayerStepRates(RATE, 1), lambda: MetaCurvature(RATE)],
)
def test_learned_rules_start_as_gradient_descent(rule):
    assert_same(lambda: maml(rule(), STEPS), plain_maml)


def test_all_weight_on_the_last_step_is_maml():
    assert_same(
        lambda: maml_plus_plus(LayerStepRates(RATE, STEPS), STEPS, msl_steps=0, second_order_after=0),
        plain_maml,
    )


def test_before_the_second_order_all_weight_on_the_last_step_is_fomaml():
    assert_same(lambda: maml_plus_plus(Sgd(RATE), STEPS, msl_steps=0, second_order_after=9), fomaml)
    assert (on_conv4(plain_maml) - on_conv4(fomaml)).norm() > 1e-3 * on_conv4(plain_maml).norm()


def test_multi_step_loss_is_the_weighted_sum_of_the_losses_of_every_length():
    learner = maml_plus_plus(Sgd(RATE), 3, msl_steps=100, second_order_after=0)
    learner, objective = bound(learner)
    weights = learner.criterion.weights(3, 25)
    assert weights == pytest.approx([0.25, 0.25, 0.5])
    episode = quadratic_episode()
    want = sum(w * closed_form_gradient(objective, episode, i + 1) for i, w in enumerate(weights))
    torch.testing.assert_close(meta_grad(learner, objective, episode, 25), want)


def closed_form_gradient(objective, episode, steps):
    _, contraction, query_grad = closed_form(objective, episode, steps)
    return contraction @ query_grad


def test_the_schedule_of_maml_plus_plus():
    learner = maml_plus_plus(Sgd(RATE), 4, msl_steps=10, second_order_after=5)
    weights, first_order = learner.criterion.weights, learner.gradient.first_order_at
    assert weights(4, 0) == [0.25] * 4
    assert first_order(0)
    assert not first_order(5)
    assert sum(weights(4, 5)) == pytest.approx(1)
    assert weights(4, 10) == [0, 0, 0, 1]
    assert first_order(3), "a resumed run stands where its step number says"
    assert not first_order(None)


def test_every_step_has_a_rate_of_its_own():
    rule = LayerStepRates(RATE, 2).double()
    w = {"w": torch.ones(3, dtype=torch.float64)}
    rule.bind(w)
    with torch.no_grad():
        rule.rates["w"].copy_(torch.tensor([1.0, 2.0]))
    for index, rate in ((0, 1), (1, 2), (7, 2)):
        assert torch.equal(rule.update(w, w, {}, index)[0]["w"], w["w"] - rate)


def test_meta_curvature_multiplies_every_mode_by_its_matrix():
    torch.manual_seed(0)
    rule = MetaCurvature(RATE, max_size=9)
    p = {
        "conv": torch.randn(3, 2, 3, 3),
        "b": torch.randn(3),
        "long": torch.randn(2, 10),
        "row": torch.randn(1, 4),
    }
    rule.bind(p)
    assert {n: sorted(maps) for n, maps in rule.maps.items()} == {
        "conv": ["0", "1", "2"], "b": ["0"], "long": ["0"], "row": ["1"],
    }  # fmt: skip
    for m in rule.parameters():
        nn.init.normal_(m)
    p["row"] = torch.randn(5, 4)  # five classes
    g = {n: torch.randn_like(x) for n, x in p.items()}
    moved, _ = rule.update(p, g, {}, 0)
    maps = rule.maps["conv"]
    want = torch.einsum("ao,bi,cf,oif->abc", maps["0"], maps["1"], maps["2"], g["conv"].flatten(2)).reshape(
        3, 2, 3, 3
    )
    torch.testing.assert_close(moved["conv"], p["conv"] - RATE * want)
    torch.testing.assert_close(moved["row"], p["row"] - RATE * g["row"] @ rule.maps["row"]["1"].T)
    torch.testing.assert_close(moved["b"], p["b"] - RATE * rule.maps["b"]["0"] @ g["b"])


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (Sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (Momentum(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
        (Adam(0.1, 0.0, 0.99), lambda p: torch.optim.Adam(p, 0.1, (0.0, 0.99), eps=1e-8)),
        (Adam(0.1), lambda p: torch.optim.Adam(p, 0.1, eps=1e-8)),
    ],
)
def test_rules_equal_torchs_optimizers(rule, optimizer):
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(5, dtype=torch.float64, generator=generator))
    params, opt = {"w": w.detach().clone()}, optimizer([w])
    slots = rule.init(params)
    for index in range(6):
        g = torch.randn(5, dtype=torch.float64, generator=generator)
        w.grad = g
        opt.step()
        params, slots = rule.update(params, {"w": g}, slots, index)
    torch.testing.assert_close(params["w"], w.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("rule", [Sgd, Momentum, Adam])
def test_the_rate_of_the_test_moves_nothing_in_meta_training(rule):
    episode, sides = quadratic_episode(), {}
    for name, learner in {
        "own": maml(rule(RATE), STEPS, test_rate=RATE / 4),
        "training": maml(rule(RATE), STEPS),
        "test": maml(rule(RATE / 4), STEPS),
    }.items():
        learner, objective = bound(learner)
        sides[name] = {
            now: learner.adapt(objective, objective.params(), episode.support, now=now)["w"]
            for now in (0, None)
        }
    assert torch.equal(sides["own"][0], sides["training"][0])
    assert torch.equal(sides["own"][None], sides["test"][None])
    assert not torch.equal(sides["own"][0], sides["own"][None])


def test_a_multitask_learner_adapts_the_tables_alone():
    _, learner, objective = build_pair("vae", "multitask")
    params, support = objective.params(), random_episodes(tasks=1).support
    phi = learner.adapt(objective, params, type(support)(*(f[0] for f in support)), 2)
    moved = {n for n in params if phi[n].shape != params[n].shape or not torch.equal(phi[n], params[n])}
    assert moved == {"context"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Implicit(strength=0), "strength=0"),
        (lambda: Implicit(cg_steps=0), "cg_steps=0"),
        (lambda: maml_plus_plus(Sgd(0.1), steps=0), "1 or more"),
        (lambda: Linear(1.0, 0.0, -1), "steps=-1"),
        (lambda: Until(-1), "step=-1"),
        (lambda: MultiStep(early=2.0), "early=2.0"),
        (lambda: MultiStep(late=-1.0), "late=-1.0"),
        (lambda: LayerStepRates(0.1, 0), "count=0"),
        (lambda: Momentum(0.1, 1.0), "mu=1.0"),
        (lambda: MetaCurvature(0.1, 1), "max_size=1"),
        (lambda: maml(Sgd(0.1), adapts="tabels"), "tables"),
        (lambda: maml(Sgd(0.1), batch=0), "batch=0"),
        (lambda: maml(Sgd(0.1), test_rate=0.0), "test_rate=0.0: expected a number above 0"),
        (lambda: maml(LearnedRates(0.1), test_rate=0.1), "test_rate=0.1: LearnedRates learns"),
        (lambda: Unrolled(checkpoint_steps=0), "checkpoint_steps=0"),
    ],
)
def test_bad_arguments_get_one_line(make, message):
    with pytest.raises(MetagenError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
