"""Every combination of start, rule, what it moves, gradient and meta-loss: right, or refused in one line."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import random_shots, rest_slow
from toys_of_parts import SIZE, STARTS, bound, covering, sorted_out

from metagen.core.episode import Episode
from metagen.functional.vectorize import loop, vmap
from metagen.training.module import Experiment

NOW = 3
"""A meta-training step in the middle of the schedules."""


def shaken(module, by=0.1):
    """The same module, no part of which is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p += by * torch.randn(p.shape, dtype=p.dtype, generator=generator)
    return module


def episodes(learner):
    support, query = (random_shots(2, 3, 2, seed, size=SIZE) for seed in (0, 1))
    if not learner.few_shot:
        support = support._replace(x=support.x[:, :, :0], y=support.y[:, :, :0])
        query = query._replace(y=query.y.clamp(max=1))
    return Episode(support, query, torch.tensor([[0, 2, 4], [5, 3, 1]]))


def gradient(over, learner, objective, batch):
    params = objective.params()
    leaves = {**params, **dict(learner.named_parameters())}
    leaves = {n: p for n, p in leaves.items() if p.requires_grad}
    loss = over(lambda e: learner.meta_loss(objective, params, e, NOW))(batch).mean()
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return loss.item(), dict(zip(leaves, grads, strict=True)), leaves


def flat(grads):
    return torch.cat([g.flatten() for g in grads.values()])


def check_backends(combination):
    """One after the other, all at once, and in chunks in two threads: the same to 1e-10.

    Return learner, objective and episodes with the meta-gradient and what it is the gradient of.
    """
    learner, objective = bound(*combination)
    experiment = Experiment(objective.model, learner, torch.optim.SGD, classes=6, chunk=1, workers=2)
    shaken(learner.double())
    objective, batch = experiment.objective, episodes(learner)
    slow, fast = (gradient(over, learner, objective, batch) for over in (loop, vmap))
    whole = flat(slow[1])
    assert abs(fast[0] - slow[0]) <= 1e-10 * abs(slow[0]), combination
    assert whole.norm() > 0, combination
    assert (flat(fast[1]) - whole).norm() < 1e-10 * whole.norm(), combination
    experiment.meta_loss(batch, NOW).backward()
    parts = {n: torch.zeros_like(g) for n, g in fast[1].items()}
    for name, p in [*objective.model.named_parameters(), *learner.named_parameters()]:
        if p.grad is not None:
            parts[name] = p.grad
    assert (flat(parts) - whole).norm() < 1e-10 * whole.norm(), combination
    return learner, objective, batch, *fast[1:]


def check_nothing_is_dropped(combination, learner, grads):
    """Whatever the learner would train has a gradient."""
    for name, p in learner.named_parameters():
        if combination[0] == "classify" and name == "start.rows.readout/bias.bias":
            continue  # what all classes share says nothing in a softmax
        assert not p.requires_grad or grads[name].abs().max() > 0, (combination, name)


def check_slope(combination, learner, objective, batch, grads, leaves):
    """Finite differences, where the gradient is that of the value."""
    if learner.surrogate or combination[4] in ("first_order", "annealed", "truncated"):
        return False
    torch.manual_seed(2)
    way = {n: torch.randn_like(p) for n, p in leaves.items()}

    def value(scale):
        with torch.no_grad():
            for n, p in leaves.items():
                p += scale * way[n]
            params = objective.params()
            return vmap(lambda e: learner.meta_loss(objective, params, e, NOW))(batch).mean().item()

    h = 1e-7  # so small that no ReLU of a learned rule switches in between
    up, down = value(h), value(-2 * h)
    got = sum((grads[n] * way[n]).sum().item() for n in leaves)
    assert got == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-8), combination
    return True


@cache
def chosen():
    """A sample of those that are trained."""
    return covering([one for one in sorted_out()[0] if one[5] != "untrained"])


@pytest.mark.parametrize("start", rest_slow(STARTS, set(STARTS) - {"theta"}))
def test_a_sample_with_every_pair_of_parts_is_exact_and_drops_nothing(start):
    sample = [one for one in chosen() if one[1] == start]
    assert sample
    slopes = []
    for one in sample:
        learner, objective, batch, grads, leaves = check_backends(one)
        check_nothing_is_dropped(one, learner, grads)
        slopes.append(check_slope(one, learner, objective, batch, grads, leaves))
    assert any(slopes)


def test_every_other_combination_is_refused_in_one_line_that_names_what_fits():
    fit, refused = sorted_out()
    assert not set(fit) & set(refused)
    for parts, message in refused.items():
        assert "\n" not in message, parts
        assert re.search(r"\buse (learner|model)[/.=]\w+", message), (parts, message)


def test_the_guide_tells_how_many_combinations_fit():
    fit, refused = sorted_out()
    parts = {one[1:] for one in fit}
    total = len(parts | {one[1:] for one in refused})
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    assert f"{len(parts):,} of the {total:,} combinations" in text, (len(parts), total)
