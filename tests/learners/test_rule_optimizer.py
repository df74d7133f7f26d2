"""A rule as an optimizer of torch: the steps of the inner loop, and torch's own customs."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from compositions import maml
from conftest import random_shots
from test_parts import shaken
from torch import nn
from toys_of_parts import SIZE, ToyClassifier

from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.lstm_rule import LstmRule
from metagen.learners.meta_curvature import MetaCurvature
from metagen.learners.mlp_rule import MlpRule
from metagen.learners.rule_optimizer import RuleOptimizer
from metagen.learners.rules import Adam, LayerStepRates, LearnedRates, Momentum, Sgd

RULES = {
    "sgd": lambda: Sgd(0.1),
    "momentum": lambda: Momentum(0.1),
    "adam": lambda: Adam(0.05),
    "lstm": lambda: LstmRule(Sgd(0.1), hidden=3),
    "mlp": lambda: MlpRule(Adam(0.05), hidden=4, scale=0.05, per_tensor=False),
}
TARGET = torch.linspace(-1, 1, 4, dtype=torch.float64)


def ruled(name):
    rule = RULES[name]()
    rule.bind({"w": torch.zeros(1, dtype=torch.float64)})
    return shaken(rule.double())


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4)).double()


def trained(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (model(TARGET) - TARGET.flip(0)).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", RULES)
def test_its_steps_are_those_of_the_inner_loop(name):
    torch.manual_seed(0)
    model = ToyClassifier().double()
    objective, rule = Objective(copy.deepcopy(model)), ruled(name)
    learner = maml(rule, 4)
    learner.bind(objective, 3)
    shots = random_shots(1, 3, 2, 0, size=SIZE)
    support = type(shots)(*(field[0] for field in shots))
    phi = learner.adapt(objective, objective.params(), support)
    optimizer = RuleOptimizer(model.parameters(), learner.rule)
    for index in range(4):
        optimizer.zero_grad()
        model.loss(support.at(index)).backward()
        optimizer.step()
    for n, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), phi[n].detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_its_state_dict_goes_on_to_the_last_bit(name):
    rule = ruled(name)
    whole = net()
    want = trained(whole, RuleOptimizer(whole.parameters(), rule), 6)
    first = net()
    optimizer = RuleOptimizer(first.parameters(), rule)
    trained(first, optimizer, 3)
    second = net()
    second.load_state_dict(first.state_dict())
    again = RuleOptimizer(second.parameters(), rule)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    got = trained(second, again, 3)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_groups_schedulers_and_closures_are_those_of_torch():
    model, reference = net(), net()
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}]
    halved = {"params": reference[0].parameters(), "lr": 0.05}
    same = [halved, {"params": reference[2].parameters(), "lr": 0.1}]
    pair = [(model, RuleOptimizer(groups, Sgd(0.1))), (reference, torch.optim.SGD(same, 0.1))]
    schedules = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5) for _, optimizer in pair]
    for _ in range(3):
        losses = []
        for part, optimizer in pair:

            def closure(part=part, optimizer=optimizer):
                optimizer.zero_grad()
                loss = (part(TARGET) - 1).square().sum()
                loss.backward()
                return loss

            losses.append(optimizer.step(closure))
        torch.testing.assert_close(*losses)
        [schedule.step() for schedule in schedules]
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_tensor_without_a_gradient_stays():
    model = net()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    trained(model, RuleOptimizer(model.parameters(), ruled("lstm")), 2)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: LearnedRates(0.1), "LearnedRates learned numbers.*use a run of learner=learned_optimizer"),
        (lambda: LayerStepRates(0.1, 2), "LayerStepRates"),
        (lambda: MetaCurvature(0.1), "MetaCurvature"),
        (lambda: MlpRule(Adam(0.1)), r"per_tensor=false"),
        (lambda: LstmRule(LearnedRates(0.1)), "LearnedRates"),
    ],
)
def test_a_rule_of_one_model_is_refused(rule, message):
    with pytest.raises(MetagenError, match=message) as error:
        RuleOptimizer(net().parameters(), rule())
    assert "\n" not in str(error.value)


def test_the_example_trains_a_net_that_it_never_saw():
    path = Path(__file__).parents[2] / "examples" / "learned_optimizer.py"
    spec = importlib.util.spec_from_file_location("learned_optimizer_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = example.main(updates=20)
    learned, *others = losses.values()
    assert learned < 0.5 * others[0], "it learned more than the rule that it started from"
