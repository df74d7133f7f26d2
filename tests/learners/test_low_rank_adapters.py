"""Low-rank adapters as what the inner steps move."""

import pytest
import torch
from compositions import maml, reptile
from conftest import build_pair, random_episodes

from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.low_rank_adapters import LowRankAdapters
from metagen.learners.rules import Sgd

RATE = 0.1


def one(shots):
    return type(shots)(*(field[0] for field in shots))


def bound(learner, model="conv4"):
    model, _, _ = build_pair(model, "maml")
    objective = Objective(model)
    learner.bind(objective, 8)
    return learner.double(), objective


@pytest.mark.parametrize("model", ["conv4", "vae"])
def test_a_step_is_that_of_torch_on_the_factors(model):
    """By hand: W + s / (r sqrt(I)) U V' with torch's SGD on U, V and the rows."""
    learner, objective = bound(maml(Sgd(RATE), 2, adapts=LowRankAdapters(2, 0.5)), model)
    params, support = objective.params(), one(random_episodes().support)
    theta = objective.for_ways({n: p.detach() for n, p in params.items()}, 3)
    z = {n: p.detach().clone().requires_grad_() for n, p in learner.adapts.init(theta).items()}
    optimizer = torch.optim.SGD(z.values(), RATE)

    def phi():
        changed = {n: z[n] for n in learner.adapts.tables}
        for layer in learner.adapts.layers:
            u, v = z[f"{layer.weight}.U"], z[f"{layer.weight}.V"]
            change = (0.5 / (2 * layer.inputs**0.5) * u @ v.T).reshape(
                layer.outputs, *(n for axis, n in enumerate(layer.shape) if axis != layer.axis)
            )
            changed[layer.weight] = theta[layer.weight] + change.movedim(0, layer.axis)
        return {**theta, **changed}

    for index in range(2):
        optimizer.zero_grad()
        objective.loss(phi(), support.at(index)).backward()
        optimizer.step()
    got = learner.adapt(objective, params, support)
    for name, want in phi().items():
        torch.testing.assert_close(got[name], want, rtol=1e-10, atol=1e-12)


def test_they_start_at_theta_and_what_they_change_has_their_rank():
    learner, objective = bound(maml(Sgd(RATE), 3, adapts=LowRankAdapters(2)))
    params, support = objective.params(), one(random_episodes().support)
    before, after = (learner.adapt(objective, params, support, steps) for steps in (0, 3))
    for name, p in objective.for_ways(params, 3).items():
        assert torch.equal(before[name], p)
    layers = {layer.weight: layer.axis for layer in learner.adapts.layers}
    moved = {n for n in params if not torch.equal(after[n], before[n])}
    assert moved == {*layers, *objective.model.per_class}
    for name, axis in layers.items():
        change = (after[name] - before[name]).movedim(axis, 0).flatten(1)
        assert torch.linalg.matrix_rank(change, rtol=1e-9) == 2


def test_reptile_moves_the_factors_and_leaves_the_layers():
    learner, objective = bound(reptile(Sgd(RATE), 3, adapts=LowRankAdapters(2)))
    params, episode = objective.params(), random_episodes(tasks=1)
    task = type(episode)(one(episode.support), one(episode.query), episode.classes[0])
    learner.meta_loss(objective, params, task).backward()
    (end,) = learner.path(objective, params, task.join(), [3], 0)
    z, _ = learner.adapts.read(end)
    for layer in learner.adapts.layers:
        assert params[layer.weight].grad is None
        for factor in "UV":
            start = learner.adapts.start[f"{layer.weight}.{factor}".replace(".", "/")]
            torch.testing.assert_close(start.grad, (start - z[f"{layer.weight}.{factor}"]).detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rank": 0}, "rank=0"), ({"scale": 0.0}, "scale=0"), ({"layers": "head"}, "layers=head.*patterns")],
)
def test_bad_arguments_get_one_line(options, message):
    with pytest.raises(MetagenError, match=message):
        LowRankAdapters(**options)


def test_a_rank_that_no_layer_has_names_what_fits():
    with pytest.raises(MetagenError, match=r"rank 99: use a smaller learner\.adapts\.rank"):
        bound(maml(Sgd(RATE), adapts=LowRankAdapters(99)))
