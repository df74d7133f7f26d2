"""Likelihood over the number of context images: what is measured, on which images, and what is refused."""

import json

import pytest
import torch
from conftest import build_pair, random_episodes

from metagen.cli.main import run
from metagen.core.episode import Episode, Shots
from metagen.errors import MetagenError
from metagen.evaluation.likelihood import Likelihood, with_replacement
from metagen.functional import rng
from metagen.functional.vectorize import loop, vmap


class Remembers:
    """A model whose -log p of an image is how many images it has seen, 100 if the image is among them."""

    likelihood = "exact"


class Objective:
    model = Remembers()

    def params(self):
        return {}

    def call(self, method, phi, target, samples):
        assert (method, samples) == ("log_likelihood", 7)
        seen = phi["seen"]
        copies = (target.x[:, :, None] == seen[:, None]).flatten(3).all(-1).any(-1)
        return -torch.where(copies, 100.0, float(seen.shape[1])).double()


class Learner:
    test_steps = 3

    def adapt(self, objective, params, support, steps=None):
        assert steps is None, "as many as in the test"
        return {"seen": support.x}

    def prior(self, objective, params, ways):
        return {"seen": torch.zeros(ways, 0, 1, 2, 2, dtype=torch.float64)}


def episode(tasks=40, ways=3, shots=4, queries=1):
    x = torch.rand(tasks, ways, shots + queries, 1, 2, 2, dtype=torch.float64)
    y = torch.arange(ways)[None, :, None].expand(tasks, ways, shots + queries)
    key = rng.fold_in(rng.key(0), torch.arange(tasks))
    support, query = (Shots(x[:, :, s], y[:, :, s], key) for s in (slice(shots), slice(shots, None)))
    return Episode(support, query, y[:, :, 0])


def test_context_grows_and_never_holds_the_target():
    nll = Likelihood([4, 0, 1], importance_samples=7)
    nll.check(Remembers(), 4)
    nll.update(Objective(), Learner(), episode(), loop)
    summary = nll.summary()
    assert [(row["images"], row["mean"], row["n"]) for row in summary["contexts"]] == [
        (0, 0, 40), (1, 1, 40), (4, 4, 40)
    ]  # fmt: skip
    assert summary["kind"] == "exact"
    assert summary["importance_samples"] is None
    assert summary["with_replacement_leaky"] == []


def test_with_replacement_the_target_leaks_as_often_as_it_must():
    nll = Likelihood([0, 4], importance_samples=7, with_replacement=True)
    tasks = 1500
    nll.update(Objective(), Learner(), episode(tasks), loop)
    assert set(nll.leaky[0]) == {0.0}
    share = (torch.tensor(nll.leaky[4]) - 4).mean() / 96
    expected = 1 - (1 - 1 / 5) ** 4
    assert share == pytest.approx(expected, abs=4 * (0.25 / tasks / 3) ** 0.5)


def test_drawn_images_are_of_their_own_class():
    batch = episode(5)
    context, target = with_replacement(batch, 3)
    everything = torch.cat([batch.support.x, batch.query.x], 2)
    for part, size in ((context, 3), (target, 1)):
        assert part.x.shape == (5, 3, size, 1, 2, 2)
        same = (part.x[:, :, :, None] == everything[:, :, None]).flatten(4).all(-1).any(-1)
        assert same.all()


@pytest.mark.parametrize("over", [loop, vmap])
@pytest.mark.parametrize(("model", "learner"), [("vae", "amortized"), ("pixel_transformer", "in_context")])
def test_agrees_with_the_models_own_likelihood(model, learner, over):
    model, learner, objective = build_pair(model, learner)
    episodes = random_episodes()
    nll = Likelihood([0, 1], importance_samples=3)
    nll.check(model, 1)
    with torch.no_grad():
        nll.update(objective, learner, episodes, over)
        for t in (0, 1):
            for i, value in enumerate(nll.values[t]):
                support, query = (Shots(*(leaf[i] for leaf in part)) for part in episodes[:2])
                support = support._replace(x=support.x[:, :t], y=support.y[:, :t])
                phi = learner.begin(objective, objective.params(), support).params if t else {}
                if not t:
                    phi = objective.for_ways(objective.params(), support.x.shape[0])
                expected = -objective.call("log_likelihood", phi, query, 3).mean()
                assert value == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"contexts": []}, "contexts"), ({"contexts": [1, 1]}, "distinct"), ({"contexts": [-1]}, "from 0"),
     ({"importance_samples": 0}, "importance_samples")],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, word):
    with pytest.raises(MetagenError, match=word):
        Likelihood(**arguments)


TINY = [
    "samples=2", "trainer.max_steps=1", "task.episodes=2", "task.val_episodes=1", "likelihood=context",
    "likelihood.importance_samples=2", "trainer.enable_progress_bar=false", "hydra.run.dir=out",
    "model.channels=8", "model.hidden=32", "task.batch=2", "judge.epochs=1", "judge.min_steps=1",
]  # fmt: skip


def test_a_run_records_it_and_more_context_than_images_is_refused(tmp_cwd, capsys):
    assert run(["train", "learner=amortized", "likelihood.contexts=[0,2]", *TINY]) == 0
    with open("out/metrics.json") as file:
        record = json.load(file)["likelihood"]
    assert record["kind"] == "bound"
    assert record["importance_samples"] == 2
    assert [len(row["per_episode"]) for row in record["contexts"]] == [2, 2]
    assert "context images" in capsys.readouterr().out
    assert run(["train", "learner=amortized", "likelihood.contexts=[9]", *TINY, "hydra.run.dir=new"]) == 2
    assert "task.shots=5" in capsys.readouterr().err
    assert run(["train", "learner=amortized", "model=flow", *TINY, "hydra.run.dir=new"]) == 2
    assert "likelihood=none" in capsys.readouterr().err
