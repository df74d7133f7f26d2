"""Norms of one image in a user's own model: every learner trains them, all tasks at once as one by one."""

import pytest
import torch
from conftest import choices, learner_of, random_episodes
from torch import nn

from metagen.core.model import Classifier
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.vectorize import loop, vmap

NORMS = {
    "layer": lambda: nn.LayerNorm([4, 7, 7]),
    "group": lambda: nn.GroupNorm(2, 4),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "rms": lambda: nn.RMSNorm([4, 7, 7]),
}


class Net(Classifier):
    def __init__(self, norm: str) -> None:
        super().__init__()
        # a smooth network, on which second derivatives tell
        self.body = nn.Sequential(nn.Conv2d(1, 4, 5, 4, 1), NORMS[norm](), nn.Tanh(), nn.Flatten())
        self.readout = nn.Linear(4 * 49, 3)

    def features(self, x, support=None):
        return self.body(x)


def gradients(learner_name, norm, over, **changes):
    torch.manual_seed(0)
    net, learner = Net(norm).double(), learner_of(learner_name)
    objective = Objective(net)
    learner.bind(objective, 8)
    learner.double().steps = min(learner.steps, 2)
    for key, value in changes.items():
        setattr(learner.gradient, key, value)
    episodes = random_episodes(tasks=2)
    loss = over(lambda one: learner.meta_loss(objective, objective.params(), one))(episodes).mean()
    leaves = [p for p in (*net.parameters(), *learner.parameters()) if p.requires_grad]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return torch.cat([torch.zeros(1), *(x.flatten() for x in found if x is not None)])


def fitting():
    """The learners that meta-train such a classifier."""
    names = []
    for name in choices("learner"):
        learner = learner_of(name)
        try:
            learner.bind(Objective(Net("group")), 8)
        except MetagenError:
            continue
        if learner.meta_trained:
            names.append(name)
    return names


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("learner", fitting())
def test_the_meta_gradient_over_all_tasks_at_once_is_that_of_one_after_the_other(learner, norm):
    one, all_at_once = (gradients(learner, norm, over) for over in (loop, vmap))
    assert one.abs().max() > 0
    # Adam's first steps divide by gradients that are 0 but for rounding: those of biases before a norm.
    torch.testing.assert_close(all_at_once, one, rtol=0, atol=1e-6 * float(one.abs().max()))


@pytest.mark.parametrize("norm", NORMS)
def test_recomputed_steps_have_the_same_meta_gradient(norm):
    expected = gradients("maml", norm, loop)
    found = gradients("maml", norm, vmap, checkpoint_steps=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
