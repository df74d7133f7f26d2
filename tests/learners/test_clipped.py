"""A step goes by a gradient of bounded length."""

import pytest
import torch
from conftest import build_pair, random_episodes

from metagen.functional.vectorize import vmap
from metagen.learners.meta_learner import clipped


def norm(tensors):
    return float(torch.stack([x.square().sum() for x in tensors.values()]).sum().sqrt())


@pytest.mark.parametrize(("scale", "length"), [(1.0, 5.0), (0.5, 2.5), (4.0, 10.0), (1e15, 10.0), (0.0, 0.0)])
def test_the_norm_of_all_tensors_together(scale, length):
    grads = {"a": scale * torch.tensor([3.0, 0.0]), "b": scale * torch.tensor(-4.0)}
    found = clipped(grads, 10.0)
    assert norm(found) == pytest.approx(length, rel=1e-6)
    if length < 10:
        assert all(torch.equal(found[n], g) for n, g in grads.items())


def test_its_derivative_is_that_of_finite_differences():
    start = {
        "a": torch.tensor([3.0, 1.0], dtype=torch.float64),
        "b": torch.tensor([-4.0], dtype=torch.float64),
    }
    for most in (2.0, 100.0):
        assert torch.autograd.gradcheck(
            lambda a, b, most=most: tuple(clipped({"a": a, "b": b}, most).values()),
            [x.clone().requires_grad_() for x in start.values()],
        )


def test_each_task_has_a_norm_of_its_own():
    grads = {"a": torch.tensor([[1.0, 0.0], [0.0, 50.0]])}
    found = vmap(lambda g: clipped(g, 10.0))(grads)["a"]
    assert found.tolist() == [[1.0, 0.0], [0.0, 10.0]]


def test_a_step_of_maml_is_never_longer_than_its_rate_times_the_largest_norm():
    _, learner, objective = build_pair("vae", "maml", extra=["learner.clip=0.5", "learner.rule.rate=0.1"])
    support, params = random_episodes().support, objective.params()
    phi = vmap(lambda s: learner.adapt(objective, params, s, 1))(support)
    begun = vmap(lambda s: learner.adapt(objective, params, s, 0))(support)
    steps = torch.stack([(phi[n] - begun[n]).flatten(1).square().sum(1) for n in phi]).sum(0).sqrt()
    assert steps.tolist() == pytest.approx([0.05, 0.05], rel=1e-6)
