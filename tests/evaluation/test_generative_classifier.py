"""A generator as a classifier: the posterior of Bayes' rule, where it is known, and who may ask for it."""

import itertools
import json
from typing import ClassVar

import pytest
import torch
from conftest import build_pair, composed, random_episodes
from torch import nn

import metagen
from metagen.cli.main import run
from metagen.config.compose import plain
from metagen.core.episode import Episode, Shots
from metagen.core.model import Generator
from metagen.core.objective import Objective
from metagen.errors import UsageError
from metagen.evaluation import evaluation as module
from metagen.evaluation.evaluation import Evaluation
from metagen.evaluation.generative_classifier import class_logits
from metagen.functional import rng
from metagen.functional.vectorize import loop, vmap
from metagen.jobs.build import parts
from metagen.metrics.accuracy import Accuracy
from metagen.metrics.cross_entropy import CrossEntropy
from metagen.metrics.negative_elbo import NegativeElbo

HEADS = torch.tensor([[0.9, 0.6], [0.2, 0.5], [0.3, 0.1]], dtype=torch.float64)
"""(N, D) probability of each of two coins to show heads, for three classes."""


class Coins(Generator):
    """p(x | n) of two independent coins, one image of 1 x 1 x 2 each."""

    likelihood = "exact"
    asked: ClassVar[list[int]] = []

    def __init__(self):
        super().__init__()
        self.context = nn.Parameter(torch.zeros(1, 2, dtype=torch.float64))

    def log_likelihood(self, shots, importance_samples):
        self.asked.append(shots.y.numel())
        p = self.context[shots.y]
        x = shots.x.flatten(2)
        return (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)

    def loss(self, shots):
        return -self.log_likelihood(shots, 1).mean()

    def sample(self, y, key):
        return self.context[y][:, None, None]


class Told:
    """A learner that is told the coins."""

    test_steps = steps = 0

    def path(self, objective, params, support, steps, over):
        for _ in steps:
            yield type("State", (), {"params": {"context": HEADS.expand(len(support.x), -1, -1)}})


TOSSES = list(itertools.product((0.0, 1.0), repeat=2))


def tosses():
    """All four outcomes as query images of every class: (N, 4, 1, 1, 2)."""
    x = torch.tensor(TOSSES, dtype=torch.float64).reshape(1, 4, 1, 1, 2).expand(3, 4, 1, 1, 2)
    return Shots(x, torch.arange(3)[:, None].expand(3, 4), rng.key(0))


def posterior(toss):
    """Bayes' rule by hand, from the probabilities of the coins."""
    likelihoods = [
        (a if toss[0] else 1 - a) * (b if toss[1] else 1 - b) for a, b in ((0.9, 0.6), (0.2, 0.5), (0.3, 0.1))
    ]
    return [p / sum(likelihoods) for p in likelihoods]


def test_the_softmax_is_the_posterior_of_bayes_rule():
    logits = class_logits(Objective(Coins()), {"context": HEADS}, tosses())
    assert logits.shape == (12, 3)
    expected = torch.tensor([posterior(toss) for toss in TOSSES] * 3, dtype=torch.float64)
    torch.testing.assert_close(logits.softmax(-1), expected)
    assert float(logits[3, 0].exp()) == pytest.approx(0.9 * 0.6)


def test_accuracy_and_cross_entropy_of_a_known_posterior(monkeypatch):
    monkeypatch.setattr(module, "adaptation_flops", lambda *args: None)
    query = Shots(*(leaf[None] for leaf in tosses()))
    support = query._replace(x=query.x[:, :, :1], y=query.y[:, :, :1])
    metrics = {"accuracy": Accuracy(), "cross_entropy": CrossEntropy()}
    evaluated = Evaluation(metrics, torch.arange(3), samples=1)
    evaluated.update(Objective(Coins()), Told(), Episode(support, query, torch.arange(3)[None]), loop)
    truth = [(n, posterior(toss)) for n in range(3) for toss in TOSSES]
    right = sum(max(range(3), key=p.__getitem__) == n for n, p in truth)
    found = {name: values[0] for name, values in evaluated.values[0].items()}
    assert found["accuracy"] == pytest.approx(100 * right / 12)
    loss = -sum(torch.tensor(p[n]).log().item() for n, p in truth) / 12
    assert found["cross_entropy"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("most", [1, 6, 23, 10**9])
def test_chunks_bound_what_the_model_sees_and_change_nothing(most):
    Coins.asked.clear()
    objective = Objective(Coins())
    logits = class_logits(objective, {"context": HEADS}, tosses(), most=most)
    assert max(Coins.asked) * 2 <= max(most, 3 * 2)
    assert sum(Coins.asked) == 36, "every image against every class, once"
    torch.testing.assert_close(logits, class_logits(objective, {"context": HEADS}, tosses()))


PAIRS = [("pixel_transformer", "in_context"), ("pixel_transformer", "maml"), ("vae", "amortized"),
         ("vae", "cavia")]  # fmt: skip


@pytest.mark.parametrize("over", [loop, vmap])
@pytest.mark.parametrize(("model", "learner"), PAIRS)
def test_each_logit_is_the_likelihood_of_one_image_in_one_class_under_what_was_adapted(model, learner, over):
    model, learner, objective = build_pair(model, learner, images=(1, 8))
    episodes = random_episodes(tasks=2, shots=1, queries=2, size=8)
    evaluated = Evaluation({"accuracy": Accuracy()}, torch.arange(8), samples=1, steps=learner.test_steps)
    with torch.no_grad():
        evaluated.update(objective, learner, episodes, over)
        support, query = (Shots(*(leaf[0] for leaf in part)) for part in episodes[:2])
        phi = learner.adapt(objective, objective.params(), support)
        logits = class_logits(objective, phi, query)
        torch.testing.assert_close(evaluated.shown.logits, logits)
        assert logits.std() > 0
        if model.likelihood != "exact":
            return
        images = query.x.flatten(0, 1)
        for b, n in itertools.product(range(6), range(3)):
            rows = Shots(images[b].expand(3, 1, 1, 8, 8), torch.arange(3)[:, None], query.key)
            alone = objective.call("log_likelihood", phi, rows, 1)[n, 0]
            assert float(logits[b, n]) == pytest.approx(float(alone), rel=1e-9)


def test_a_bound_becomes_the_posterior_with_its_samples():
    """Two estimates of another noise each agree the better, the more samples they have."""
    _, learner, objective = build_pair("vae", "amortized", images=(1, 8))
    episode = random_episodes(tasks=1, shots=1, queries=2, size=8)
    support, query = (Shots(*(leaf[0] for leaf in part)) for part in episode[:2])
    with torch.no_grad():
        phi = learner.adapt(objective, objective.params(), support)
        one, many = (
            [class_logits(objective, phi, query.at(key), samples) for key in (0, 1)] for samples in (1, 200)
        )
    assert (many[0] - many[1]).abs().mean() < 0.3 * (one[0] - one[1]).abs().mean()
    assert many[0].mean() > one[0].mean(), "it rises to log p from below"


def test_without_a_metric_that_needs_them_no_likelihood_is_taken(monkeypatch):
    monkeypatch.setattr(module, "class_logits", None)
    _, learner, objective = build_pair("pixel_transformer", "in_context", images=(1, 8))
    evaluated = Evaluation({"negative_elbo": NegativeElbo()}, torch.arange(8), samples=1)
    with torch.no_grad():
        evaluated.update(objective, learner, random_episodes(tasks=1, size=8), loop)
    assert evaluated.shown.logits is None


@pytest.mark.parametrize("metric", ["accuracy", "accuracy_inductive", "cross_entropy"])
@pytest.mark.parametrize("model", ["gan", "flow", "warp", "deformation"])
def test_a_generator_without_likelihood_is_refused_before_anything_is_loaded(model, metric):
    learner = {"gan": "reptile", "flow": "amortized"}.get(model, "in_context")
    config = composed(f"model={model}", f"learner={learner}", f"metric=[diversity,{metric}]")
    with pytest.raises(UsageError, match="model=pixel_transformer or model=vae") as found:
        parts(plain(config))
    assert f"metric {metric} needs logits" in str(found.value)
    assert "\n" not in str(found.value)


TINY = [
    "model=pixel_transformer", "learner=in_context", "metric=[accuracy,cross_entropy,negative_elbo]",
    "data.size=8", "model.size=8", "model.width=16", "model.layers=1", "model.features=8", "task.shots=1",
    "task.queries=1", "task.test_queries=2", "task.batch=1", "task.episodes=2", "task.val_episodes=1",
    "samples=2", "trainer.max_steps=2", "trainer.enable_progress_bar=false",
]  # fmt: skip


def test_one_checkpoint_draws_scores_and_classifies(tmp_cwd, capsys):
    assert run(["train", *TINY, "hydra.run.dir=run"]) == 0
    assert run(["evaluate", "run", "metric=[accuracy]", "curves=last", "hydra.run.dir=again"]) == 0
    record, again = (json.loads((tmp_cwd / name / "metrics.json").read_text()) for name in ("run", "again"))
    assert list(record["per_episode"]) == ["accuracy", "cross_entropy", "negative_elbo"]
    assert record["main"] == "accuracy"
    assert again["per_episode"] == {"accuracy": record["per_episode"]["accuracy"]}
    assert (tmp_cwd / "run" / "predictions.png").is_file()
    assert run(["compare", "run", "again"]) == 0
    assert "accuracy" in capsys.readouterr().out
    trained = metagen.load("run")
    images = torch.rand(3, 1, 1, 8, 8).round()
    told = trained.classify(images, images.expand(3, 2, 1, 8, 8))
    assert told.shape == (3, 2, 3)
    torch.testing.assert_close(told.sum(-1), torch.ones(3, 2))
    nats = trained.log_likelihood(images, images)[:, 0]
    assert trained.generate(images, n=2).shape == (3, 2, 1, 8, 8)
    row = torch.stack([trained.log_likelihood(images, images[:1].expand(3, 1, 1, 8, 8))[:, 0]])
    torch.testing.assert_close(told[0, 0], row.softmax(-1)[0])
    torch.testing.assert_close(row[0, 0], nats[0])
