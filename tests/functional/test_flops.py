"""FLOPs of adaptation, against closed forms and torch's own counter."""

import pytest
import torch
from conftest import build_pair, random_episodes
from torch.utils.flop_counter import FlopCounterMode

from metagen.evaluation.evaluation import Evaluation
from metagen.functional.flops import adaptation_flops, count_flops
from metagen.functional.vectorize import loop
from metagen.metrics.negative_elbo import NegativeElbo


@pytest.mark.parametrize("inference", [False, True])
def test_a_matrix_product_and_its_gradient(inference):
    x, w = torch.rand(5, 7), torch.rand(3, 7)
    with torch.inference_mode(inference):
        _, forward = count_flops(lambda: torch.nn.functional.linear(x, w))
        grads, both = count_flops(
            lambda: torch.func.grad(lambda w: torch.nn.functional.linear(x, w).sum())(w)
        )
    assert forward == 2 * 5 * 7 * 3
    assert both == 2 * forward
    torch.testing.assert_close(grads, x.sum(0).expand(3, 7))


@pytest.mark.parametrize("pair", [("conv4", "maml"), ("vae", "chain"), ("flow", "maml")])
def test_torchs_counter_counts_as_many_where_it_can(pair):
    _, learner, objective = build_pair(*pair)
    support = type(random_episodes().support)(*(leaf[0] for leaf in random_episodes().support))
    start, step = adaptation_flops(learner, objective, objective.params(), support)
    # The hooks of torch's counter refuse a module that returns a view of a parameter without its graph.
    params = {name: p.detach() for name, p in objective.params().items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        learner.adapt(objective, params, support, 2)
    assert counter.get_total_flops() == start + 2 * step
    assert step > 0


def test_a_loss_with_a_gradient_inside_is_counted():
    _, learner, objective = build_pair("gan", "reptile")
    support = type(random_episodes().support)(*(leaf[0] for leaf in random_episodes().support))
    assert adaptation_flops(learner, objective, objective.params(), support)[1] > 0


def test_the_curve_has_them_at_every_budget():
    _, learner, objective = build_pair("vae", "maml")
    evaluation = Evaluation({"negative_elbo": NegativeElbo()}, torch.arange(8), samples=1, steps=2)
    with torch.no_grad():
        evaluation.update(objective, learner, random_episodes(), loop)
    flops = [point["flops"] for point in evaluation.curve()]
    assert flops[0] == 0
    assert flops[2] == 2 * flops[1] > 0
