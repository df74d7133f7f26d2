"""Every learner gives the figures that it gave before it was composed of parts."""

import json
from pathlib import Path

import pytest
import torch
from conftest import build_pair, random_episodes, rest_slow
from test_pairs import episodes_for

from metagen.functional.vectorize import vmap

BEFORE = json.loads(Path(__file__).with_name("figures_of_before.json").read_text())
"""By "model learner now": the meta-loss, its gradient and an adaptation of three steps, in float64.

Tensors are told by their products with cos(0), cos(1), ..., added up. Made by the classes GradientDescent,
Chain, MAMLPlusPlus and so on, one of each learner, of the commit before these went.
"""
NAMES = sorted({key.split()[1] for key in BEFORE})


def told(tensors):
    products = (x.detach().flatten() @ torch.cos(torch.arange(x.numel(), dtype=x.dtype)) for x in tensors)
    return float(sum(products))


def figures(model, name, now):
    extra = ["learner.start.any_shots=true"] if name == "amortized" and now else []
    extra += ["learner.rule.rate=0.1"] if name == "scratch_momentum" else []
    extra += ["learner.rule.hidden=8", "learner.steps=20"] if name == "learned_optimizer" else []
    _, learner, objective = build_pair(model, name, extra=[*extra, "learner.clip=null"], kept=False)
    if name == "imaml":
        learner.gradient.cg_steps = 5
    episodes, params, found = episodes_for(learner, size=28), objective.params(), {}
    if learner.meta_trained:
        loss = vmap(lambda e: learner.meta_loss(objective, params, e, now))(episodes).mean()
        leaves = [*params.values(), *learner.parameters()]
        grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        found = {"loss": loss.item(), "theta": told(grads[: len(params)]), "own": told(grads[len(params) :])}
    with torch.no_grad():
        phi = vmap(lambda s: learner.adapt(objective, params, s, 3))(episodes.support)
        query = vmap(objective.query_loss)(phi, episodes)
    return {**found, "phi": told(phi[n] for n in sorted(params)), "query": query.mean().item()}


@pytest.mark.parametrize("learner", rest_slow(NAMES, ["maml", "reptile", "amortized", "chain"]))
def test_equal_figures(learner):
    for key, before in BEFORE.items():
        model, name, now = key.split()
        if name == learner:
            assert figures(model, name, int(now)) == pytest.approx(before, rel=1e-9, abs=1e-10), key


def test_the_figures_tell_learners_apart():
    losses = {key: row["query"] for key, row in BEFORE.items() if key.startswith("conv4")}
    assert len(set(losses.values())) > len(losses) / 2
    assert random_episodes(seed=0).support.x.dtype == torch.float64
