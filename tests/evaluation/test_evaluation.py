"""Evaluation: budgets, episodes, and what an untrained model scores."""

import pytest
import torch
from conftest import build_pair

from metagen.data.digits import Digits
from metagen.data.sampler import EpisodeSampler
from metagen.evaluation.evaluation import Evaluation, budgets
from metagen.functional.vectorize import loop, vmap
from metagen.metrics.accuracy import Accuracy
from metagen.metrics.diversity import Diversity
from metagen.metrics.memorisation import Memorisation
from metagen.metrics.negative_elbo import NegativeElbo


def sampler(ways, queries=5):
    bank = Digits(split="digits_789").load()
    return EpisodeSampler(bank, list("0123456"), ways, 1, queries, 0, "test")


def to64(episodes):
    parts = [part._replace(x=part.x.double()) for part in episodes[:2]]
    return episodes._replace(support=parts[0], query=parts[1])


def test_budgets():
    assert budgets(0) == [0]
    assert budgets(10) == [0, 1, 2, 5, 10]
    assert budgets(7) == [0, 1, 2, 5, 7]


@pytest.mark.parametrize("model", ["conv4", "basenet"])
def test_accuracy_before_adaptation_is_one_in_n(model):
    """Labels are shuffled in every episode, so that a fixed output layer knows nothing of them."""
    _, learner, objective = build_pair(model, "maml", ways=5)
    draw = sampler(5)
    evaluation = Evaluation({"accuracy": Accuracy()}, draw.class_ids)
    with torch.no_grad():
        for start in range(0, 200, 50):
            episodes = to64(draw.episodes(torch.arange(start, start + 50)))
            evaluation.update(objective, learner, episodes, loop)
    found = evaluation.summary()["accuracy"]
    assert found["n"] == 200
    assert abs(found["mean"] - 20) < 2 * found["ci95"]


def test_backends_and_batch_sizes_give_the_same_numbers():
    _, learner, objective = build_pair("vae", "chain")
    draw = sampler(3)
    metrics = {"negative_elbo": NegativeElbo(), "diversity": Diversity(), "memorisation": Memorisation()}
    runs = []
    for over, size in ((vmap, 4), (loop, 2)):
        evaluation = Evaluation(metrics, draw.class_ids, samples=3, steps=2)
        with torch.no_grad():
            for part in torch.arange(4).split(size):
                evaluation.update(objective, learner, to64(draw.episodes(part)), over)
        runs.append(evaluation)
    assert len(runs[0]) == len(runs[1]) == 4
    assert [point["step"] for point in runs[0].curve()] == [0, 1, 2]
    for step in (0, 1, 2):
        for name in metrics:
            assert runs[0].values[step][name] == pytest.approx(runs[1].values[step][name], rel=1e-9)
    assert torch.equal(runs[0].shown.labels, runs[1].shown.labels)
    torch.testing.assert_close(runs[0].shown.samples, runs[1].shown.samples)
