"""Learned optimizers against the hand-made rules and the unrolled gradients that they contain."""

import math
from types import SimpleNamespace

import pytest
import torch
from compositions import learned_optimizer, maml
from conftest import build_pair, random_episodes
from test_oracles import Quadratic, quadratic_episode
from torch import nn

from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.vectorize import loop, tasks_of, vmap
from metagen.learners import lstm_rule
from metagen.learners.gradients import Unrolled
from metagen.learners.lstm_rule import LstmRule, _advance, preprocess
from metagen.learners.mlp_rule import MlpRule, orthogonal
from metagen.learners.rules import Adam, Momentum, Sgd
from metagen.training import module
from metagen.training.module import Experiment

RATE, STEPS = 0.1, 6
RULES = {
    "lstm": lambda base: LstmRule(base, hidden=5),
    "mlp": lambda base: MlpRule(base, hidden=6),
    "orthogonal": lambda base: MlpRule(base, hidden=6, orthogonal=True),
}
EQUIVARIANT = [rule for rule in RULES if rule != "orthogonal"]
BASES = {"sgd": lambda: Sgd(RATE), "momentum": lambda: Momentum(RATE), "adam": lambda: Adam(RATE)}


def bound(learner):
    objective = Objective(Quadratic())
    learner.bind(objective, 2)
    return learner.double(), objective


def shaken(learner, seed=0):
    """The learner after a change of all of its weights, so that no part of it is zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in learner.parameters():
            p += 0.3 * torch.randn_like(p)
    return learner


def gradient(learner, objective, episode):
    loss = learner.meta_loss(objective, objective.params(), episode)
    grads = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True, materialize_grads=True)
    return loss.detach(), torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rule", RULES)
def test_an_untrained_rule_is_its_base(rule, base):
    """So a learned optimizer initialised to SGD equals SGD, momentum equals momentum, Adam equals Adam."""
    learned, objective = bound(learned_optimizer(RULES[rule](BASES[base]()), STEPS, random_start=False))
    plain, same = bound(maml(BASES[base](), STEPS))
    support = quadratic_episode().support
    for steps in (1, STEPS):
        a, b = (
            learner.adapt(o, o.params(), support, steps)["w"]
            for learner, o in ((learned, objective), (plain, same))
        )
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    moved = shaken(learned).adapt(objective, objective.params(), support)["w"]
    assert (moved - b).abs().min() > 1e-6, "and a trained one is not"


@pytest.mark.parametrize("rule", RULES)
def test_truncation_that_covers_the_unroll_is_full_backpropagation(rule):
    grads = {}
    for truncation in (None, STEPS + 3, STEPS, STEPS - 1, 1):
        learner = learned_optimizer(RULES[rule](Sgd(RATE)), STEPS, truncation=truncation)
        learner, objective = bound(learner)
        torch.manual_seed(0)
        for p in learner.parameters():
            nn.init.normal_(p, std=0.3)
        grads[truncation] = gradient(learner, objective, quadratic_episode())
    full_loss, full = grads[None]
    for truncation, (loss, grad) in grads.items():
        assert torch.equal(loss, full_loss), "a cut changes the gradient, not the value"
        difference = (grad - full).norm() / full.norm()
        assert difference == 0 if truncation is None or truncation >= STEPS else difference > 1e-6


@pytest.mark.parametrize("rule", RULES)
def test_a_cut_graph_adds_the_gradients_of_its_segments(rule):
    """By hand: every segment by itself, from where the one before it arrived."""
    learner = shaken(bound(learned_optimizer(RULES[rule](Sgd(RATE)), STEPS, truncation=2))[0])
    objective, episode = Objective(Quadratic()), quadratic_episode()
    _, got = gradient(learner, objective, episode)
    params, want = objective.params(), torch.zeros_like(got)
    state = learner.begin(objective, params, episode.support, 0)
    for first in range(0, STEPS, 2):
        losses = []
        for index in (first, first + 1):
            state = learner.step(objective, params, state, episode.support, index, 0)
            losses.append(objective.loss(state.params, episode.query))
        parts = torch.autograd.grad(
            sum(losses) / STEPS, list(learner.parameters()), allow_unused=True, materialize_grads=True
        )
        want += torch.cat([g.flatten() for g in parts])
        state = type(state)(*torch.utils._pytree.tree_map(lambda x: x.detach(), tuple(state)))
    torch.testing.assert_close(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learned_optimizer", "learned_optimizer_mlp"])
@pytest.mark.parametrize("over", [loop, vmap])
def test_recomputed_steps_give_the_same_meta_gradient(name, over):
    _, learner, objective = build_pair("conv4", name)
    learner.steps, learner.gradient.truncation, learner.gradient.checkpoint_steps = 4, 2, None
    shaken(learner)
    params, episodes = objective.params(), random_episodes()

    def flat():
        loss = over(lambda e: learner.meta_loss(objective, params, e))(episodes).mean()
        grads = torch.autograd.grad(loss, list(learner.parameters()))
        return torch.cat([g.flatten() for g in grads])

    plain = flat()
    learner.gradient.checkpoint_steps = 1
    torch.testing.assert_close(flat(), plain, rtol=1e-9, atol=1e-12)


def test_a_chunk_takes_no_more_tasks_than_their_steps_may_remember():
    """An LSTM remembers 16 numbers for every parameter, from one step to the next."""
    _, learner, objective = build_pair("basenet", "learned_optimizer")
    learner.steps = 20
    experiment, first = (
        Experiment(objective.model, learner, torch.optim.SGD, classes=8),
        random_episodes(tasks=1),
    )
    moving = sum(p.numel() for p in experiment.objective.for_ways(objective.params(), 3).values())
    numbers = moving * (1 + 4 * 4)  # itself, and h and c of two layers of 4 units
    assert experiment._size(first).largest == 20 * numbers * 8 // 8
    learner.steps = 0
    assert experiment._size(first).largest < numbers


@pytest.mark.slow
def test_validation_and_test_go_over_as_many_tasks_as_their_states_fit(monkeypatch):
    _, learner, objective = build_pair("conv4", "learned_optimizer")
    shaken(learner)
    experiment, batch = Experiment(objective.model, learner, torch.optim.SGD, classes=8), random_episodes(5)
    whole, seen = experiment.query_loss(batch), []
    assert len(experiment._parts(batch)) == 1
    one = experiment._state(random_episodes(1))
    monkeypatch.setattr(module, "MOST", 2 * module.STATES * one)
    assert [tasks_of(part) for part in experiment._parts(batch)] == [2, 2, 1]
    torch.testing.assert_close(experiment.query_loss(batch), whole)
    experiment.evaluation = SimpleNamespace(update=lambda *of: seen.append(tasks_of(of[2])))
    experiment.test_step(batch, 0)
    assert seen == [2, 2, 1]
    monkeypatch.setattr(module, "MOST", 1)
    assert [tasks_of(part) for part in experiment._parts(batch)] == [1] * 5


def test_the_written_out_cell_is_torchs_lstm_cell():
    rule = LstmRule(Sgd(RATE), hidden=4).double()
    cell = nn.LSTMCell(2, 4).double()
    with torch.no_grad():
        cell.weight_ih.copy_(rule.first[0])
        cell.weight_hh.copy_(rule.first[1])
        cell.bias_ih.copy_(rule.first[2][:, 0])
        cell.bias_hh.zero_()
    torch.manual_seed(0)
    x, h, c = (torch.randn(n, 7, dtype=torch.float64) for n in (2, 4, 4))
    for ours, theirs in zip(_advance(rule.first, x, h, c), cell(x.T, (h.T, c.T)), strict=True):
        torch.testing.assert_close(ours, theirs.T)


def test_the_cell_has_the_gradients_of_finite_differences_twice_and_under_vmap(monkeypatch):
    monkeypatch.setattr(lstm_rule, "BLOCK", 2)  # 3 coordinates: two parts
    torch.manual_seed(0)
    sizes = ((8, 2), (8, 2), (8, 1), (2, 3), (2, 3), (2, 3))
    parts = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]

    def advance(*parts):
        return _advance(parts[:3], *parts[3:])

    assert torch.autograd.gradcheck(advance, parts)
    assert torch.autograd.gradgradcheck(advance, parts)
    tasks = [part.detach().expand(2, *part.shape).clone().requires_grad_() for part in parts[3:]]
    together = torch.func.vmap(advance, (None, None, None, 0, 0, 0))
    assert torch.autograd.gradcheck(together, [*parts[:3], *tasks])


def test_a_step_of_the_lstm_remembers_what_its_cells_read_and_no_gates():
    """2 inputs and 2 x 5 of state, then 5 and 10, and a few numbers of the step itself: not 120."""
    rule, coordinates = LstmRule(Sgd(RATE), hidden=5), 1000
    params = {"p": torch.randn(coordinates)}
    grads, slots, sizes = {"p": torch.randn(coordinates)}, rule.init(params), {}

    def pack(x):
        sizes[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        rule.update(params, grads, slots, 0)
    assert sum(sizes.values()) < 40 * coordinates


def test_inputs_of_the_lstm_are_those_of_the_paper():
    g = torch.tensor([1.0, -math.exp(-5), math.exp(-12), 0.0], dtype=torch.float64)
    want = torch.tensor([[0.0, -0.5, -1.0, -1.0], [1.0, -1.0, math.exp(-2), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(preprocess(g, 10.0), want)
    assert torch.func.grad(lambda g: preprocess(g, 10.0).sum())(g).isfinite().all()


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 2, 3, 3), (6,)])
def test_an_orthogonal_step_has_singular_values_near_one(shape):
    """It keeps the singular vectors, and the root mean square is near 1."""
    torch.manual_seed(0)
    m = torch.randn(shape, dtype=torch.float64)
    matrix, got = (x.flatten(1) if x.dim() > 1 else x[None] for x in (m, orthogonal(m)))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    s = u.T @ got @ v.T / math.sqrt(max(matrix.shape))
    torch.testing.assert_close(s, s.diagonal().diag(), rtol=0, atol=1e-9)
    assert s.diagonal().min() > 0.65
    assert s.diagonal().max() < 1.25
    assert orthogonal(torch.zeros(shape)).eq(0).all()


def test_an_orthogonal_step_goes_downhill():
    """With c_n = (0.1, 0, ...) a step of Sgd becomes u - s 10 0.1 orthogonal(g)."""
    torch.manual_seed(0)
    p = {"a": torch.randn(3, 2), "b": torch.randn(4)}
    g = {n: torch.randn_like(x) for n, x in p.items()}
    rule = MlpRule(Sgd(RATE), hidden=4, scale=0.02, orthogonal=True)
    rule.bind(p)
    with torch.no_grad():
        rule.share[:, 0] = 0.1
    moved, _ = rule.update(p, g, rule.init(p), 0)
    for n in p:
        torch.testing.assert_close(moved[n], p[n] - RATE * g[n] - 0.02 * orthogonal(g[n]))


@pytest.mark.parametrize("rule", EQUIVARIANT)
def test_every_coordinate_has_the_same_network(rule):
    """Exchanging two coordinates of a tensor exchanges their steps."""
    torch.manual_seed(0)
    p = {"a": torch.randn(3, 2), "b": torch.randn(4)}
    g = {n: torch.randn_like(x) for n, x in p.items()}
    learned = RULES[rule](Adam(RATE))
    learned.bind(p)
    shaken(learned)
    order = torch.tensor([2, 0, 3, 1])

    def after(p, g):
        slots = learned.init(p)
        for index in range(3):
            p, slots = learned.update(p, g, slots, index)
        return p

    plain = after(p, g)
    mixed = after({**p, "b": p["b"][order]}, {**g, "b": g["b"][order]})
    torch.testing.assert_close(mixed["b"], plain["b"][order])
    torch.testing.assert_close(mixed["a"], plain["a"])


@pytest.mark.parametrize("model", ["conv4", "vae"])
def test_random_starts_differ_between_episodes_and_look_like_the_initialisation(model):
    model, learner, objective = build_pair(model, "learned_optimizer_mlp")
    params, support = objective.params(), random_episodes(tasks=2).support
    starts = vmap(lambda s: learner.begin(objective, params, s).params)(support)
    again = vmap(lambda s: learner.begin(objective, params, s).params)(support)
    for name in learner.names:
        one, other = starts[name]
        assert torch.equal(starts[name], again[name])
        std = params[name].std(correction=0)
        if std == 0:
            assert torch.equal(one, params[name].expand_as(one)), "a constant stays one"
        elif one.numel() > 200:
            assert not torch.equal(one, other)
            assert one.std() == pytest.approx(std.item(), rel=0.3)
            assert abs(one.mean() - params[name].mean()) < 5 * std / math.sqrt(one.numel())


def test_the_control_starts_where_the_learned_one_does():
    """Untrained, both give the same adaptation: what differs later is the rule alone."""
    extra = ["learner.rule.base.rate=0.01"]
    _, learned, objective = build_pair("conv4", "learned_optimizer_mlp", extra=extra)
    _, control, _ = build_pair("conv4", "scratch_adam", extra=["learner.rule.rate=0.01"])
    assert not control.meta_trained
    support = type(s := random_episodes(tasks=1).support)(*(part[0] for part in s))
    a, b = (learner.adapt(objective, objective.params(), support, 3) for learner in (learned, control))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_meta_training_makes_it_faster_than_its_base():
    """On random quadratics, judged on others: a few dozen steps halve the loss of the base rule."""
    learner, objective = bound(learned_optimizer(MlpRule(Adam(0.02), hidden=8, scale=0.01), 8, truncation=4))
    optimizer = torch.optim.Adam(learner.parameters(), 0.02)

    def episodes(first, count):
        for seed in range(first, first + count):
            episode = quadratic_episode()
            yield episode._replace(support=episode.support._replace(key=rng.key(seed)))

    def judged():
        with torch.no_grad():
            params, losses = objective.params(), []
            for episode in episodes(1000, 20):
                phi = learner.adapt(objective, params, episode.support)
                losses.append(objective.loss(phi, episode.query))
            return torch.stack(losses).mean().item()

    before = judged()
    for episode in episodes(0, 60):
        optimizer.zero_grad()
        learner.meta_loss(objective, objective.params(), episode).backward()
        optimizer.step()
    assert judged() < before / 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unrolled(truncation=0), "truncation=0"),
        (lambda: LstmRule(Sgd(RATE), hidden=0), "hidden=0"),
        (lambda: MlpRule(Sgd(RATE), scale=0), "scale=0"),
        (lambda: MlpRule(Sgd(RATE), betas=(1.0,)), "betas"),
        (lambda: MlpRule(Sgd(RATE), betas=(), orthogonal=True), "orthogonal=true"),
    ],
)
def test_bad_arguments_get_one_line(make, message):
    with pytest.raises(MetagenError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
