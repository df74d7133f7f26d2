"""Evaluation: budgets, episodes, and what an untrained model scores."""

import pytest
import torch
from conftest import build_pair, choices, composed
from hydra.utils import instantiate

from metagen.core.metric import PooledMetric
from metagen.data.digits import Digits
from metagen.data.sampler import EpisodeSampler
from metagen.evaluation.evaluation import Evaluation, budgets
from metagen.functional.vectorize import loop, vmap
from metagen.metrics.accuracy import Accuracy
from metagen.metrics.augmentation import Augmentation
from metagen.metrics.classification_accuracy_score import LearnedScore
from metagen.metrics.diversity import Diversity
from metagen.metrics.features import FeatureMetric
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


@pytest.mark.slow
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


class Costly(Diversity):
    costly = True


class Pooled(PooledMetric):
    name = "pooled"
    needs_samples = True

    def gather(self, outcome):
        return float(outcome.samples.mean())

    def conclude(self, kept):
        return kept


def evaluated(learner, objective, **options):
    metrics = {"diversity": Diversity(), "costly": Costly(), "pooled": Pooled()}
    draw = sampler(3)
    evaluation = Evaluation(metrics, draw.class_ids, samples=3, steps=2, **options)
    with torch.no_grad():
        evaluation.update(objective, learner, to64(draw.episodes(torch.arange(1))), loop)
    return evaluation


def test_what_is_costly_is_measured_after_the_last_step_only_and_is_the_same_there(monkeypatch):
    monkeypatch.setattr("metagen.evaluation.evaluation.adaptation_flops", lambda *args: None)
    _, learner, objective = build_pair("vae", "scratch")
    cheap, everything = (evaluated(learner, objective, curves=curves) for curves in ("cheap", "all"))
    assert [list(found) for found in cheap.values.values()] == [
        ["diversity"], ["diversity"], ["diversity", "costly", "pooled"]
    ]  # fmt: skip
    assert list(everything.curve()[0]["metrics"]) == ["diversity", "costly"]
    assert everything.values[0]["costly"] == everything.values[0]["diversity"]
    assert cheap.summary() == everything.summary()
    assert list(cheap.summary()) == ["diversity", "costly", "pooled"]
    assert cheap.values[2] == everything.values[2]
    assert cheap.values[2]["costly"] == cheap.values[2]["diversity"]


def test_no_metric_is_measured_before_the_last_step_where_only_that_is_asked_for(monkeypatch):
    monkeypatch.setattr("metagen.evaluation.evaluation.adaptation_flops", lambda *args: None)
    _, learner, objective = build_pair("vae", "scratch")
    cheap, last = (evaluated(learner, objective, curves=curves) for curves in ("cheap", "last"))
    assert list(last.values) == [2]
    assert last.values[2] == cheap.values[2]


def test_what_trains_a_classifier_or_compares_features_is_costly():
    for node in composed(f"metric=[{','.join(choices('metric'))}]").metrics.values():
        metric = instantiate(node)
        kinds = FeatureMetric | LearnedScore | Augmentation
        assert metric.costly == isinstance(metric, kinds), metric.name


def test_many_samples_are_drawn_in_parts_each_with_noise_of_its_own(monkeypatch):
    monkeypatch.setattr("metagen.evaluation.evaluation.adaptation_flops", lambda *args: None)
    _, learner, objective = build_pair("vae", "scratch")
    draw = sampler(3)

    def samples(count, backend=loop):
        evaluation = Evaluation({}, draw.class_ids, samples=count)
        with torch.no_grad():
            evaluation.update(objective, learner, to64(draw.episodes(torch.arange(2))), backend)
        return evaluation.shown.samples

    whole = samples(2)
    monkeypatch.setattr("metagen.evaluation.evaluation.AT_ONCE", 7)  # two of each of three classes
    parts = samples(5)
    assert parts.shape == (3, 5, *whole.shape[2:])
    assert torch.equal(parts[:, :2], whole)
    assert all(len(of_class.unique(dim=0)) == 5 for of_class in parts)
    torch.testing.assert_close(samples(5, vmap), parts)
    monkeypatch.setattr("metagen.evaluation.evaluation.AT_ONCE", 1)  # more classes than are drawn at once
    assert samples(2).shape == whole.shape
