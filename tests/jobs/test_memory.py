"""What training and evaluation keep: nothing between episodes, and what the inner steps cost."""

import gc
import weakref

import pytest
import torch
from conftest import FEW_SHOT, FITTING, build_pair, random_episodes, rest_slow, run_of
from test_resume import config_for
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metagen.core.episode import Shots
from metagen.evaluation.evaluation import Evaluation
from metagen.evaluation.generative_classifier import class_logits
from metagen.functional.vectorize import loop, vmap
from metagen.jobs import train
from metagen.metrics.cross_entropy import CrossEntropy
from metagen.metrics.negative_elbo import NegativeElbo
from metagen.training.module import Experiment

LEARNERS = {learner: model for model, learner in sorted(FEW_SHOT, key=lambda pair: pair[0] == "conv4")}
"""Every few-shot learner with one model that it fits, the smallest if it does."""
SIZE = 16
"""Of the images: what is kept is kept at every size."""


@pytest.fixture(autouse=True)
def only_what_is_new():
    """Let the garbage collector look at nothing that was there before the test."""
    gc.collect()
    gc.freeze()


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors made inside that are alive, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in (out,) if isinstance(out, torch.Tensor) else tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._watch(leaf.untyped_storage())
        return out

    def _watch(self, storage):
        size, key = storage.nbytes(), storage._cdata
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, lambda _: self._forget(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _forget(self, key, size):
        del self._alive[key]
        self.now -= size


def peak(learner, objective, episodes, over=vmap):
    """The most bytes that a meta-gradient holds at a time."""
    params = objective.params()
    leaves = [*params.values(), *learner.parameters()]
    gc.collect()
    with Held() as held:
        loss = over(lambda e: learner.meta_loss(objective, params, e))(episodes).mean()
        torch.autograd.grad(loss, leaves, allow_unused=True)
    return held.peak


def test_the_counter_counts():
    with Held() as held:
        a = torch.zeros(1000)
        b = a + 1
        assert held.now == 8000
        del b
        assert (held.now, held.peak) == (4000, 8000)
        _ = a.view(10, 100)
        assert held.now == 4000


@pytest.mark.parametrize(
    ("model", "name", "over"),
    [
        ("conv4", "maml", vmap),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in (
                ("conv4", "maml", loop),
                ("vae", "maml", vmap),
                ("conv4", "learned_optimizer_mlp", vmap),
            )
        ),
    ],
)
def test_memory_of_training_is_linear_in_the_steps_and_sublinear_where_they_are_recomputed(model, name, over):
    _, learner, objective = build_pair(model, name, images=(1, SIZE))
    episodes = random_episodes(size=SIZE)

    def measured(steps, every):
        learner.steps, learner.gradient.checkpoint_steps = steps, every
        return peak(learner, objective, episodes, over)

    four, eight, sixteen = (measured(steps, None) for steps in (4, 8, 16))
    assert (sixteen - eight) / (eight - four) == pytest.approx(2, rel=0.1), "as much for every step"
    # sqrt(S) segments of sqrt(S) steps: four times the steps are about twice the graph.
    small, large = measured(4, 2), measured(16, 4)
    assert large < 0.5 * sixteen
    assert large < 2 * small


@pytest.mark.parametrize("name", ["fomaml", "reptile", "imaml"])
def test_memory_of_first_order_training_does_not_grow_with_the_steps(name):
    _, learner, objective = build_pair("conv4", name, images=(1, SIZE))
    episodes = random_episodes(size=SIZE)
    learner.steps = 4
    few = peak(learner, objective, episodes)
    learner.steps = 16
    assert peak(learner, objective, episodes) < 1.1 * few


def evaluation(model, steps):
    metric = CrossEntropy() if model.kind == "classify" else NegativeElbo()
    return Evaluation({metric.name: metric}, torch.arange(8), samples=2, steps=steps)


def alive():
    """Bytes of all tensors that Python holds."""
    gc.collect()
    tensors = (x for x in gc.get_objects() if isinstance(x, torch.Tensor))
    return sum({x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in tensors}.values())


@pytest.mark.parametrize("name", rest_slow(LEARNERS, ["maml", "chain", "in_context", "learned_optimizer"]))
def test_evaluation_keeps_nothing_of_300_episodes(name):
    model, learner, objective = build_pair(LEARNERS[name], name, ways=2, images=(1, SIZE))
    evaluated, batch = evaluation(model, 1), random_episodes(tasks=50, ways=2, shots=1, queries=1, size=SIZE)
    levels = []
    with torch.no_grad():
        for _ in range(6):
            evaluated.update(objective, learner, batch, vmap)
            levels.append(alive())
    assert len(evaluated) == 300
    assert levels[-1] == levels[0] > 0


@pytest.mark.parametrize("name", [name for name in LEARNERS if FITTING[LEARNERS[name], name].test_steps])
def test_evaluation_builds_no_graph_over_its_steps(name):
    """A graph, of first or of second order, would hold every step."""
    model, learner, objective = build_pair(LEARNERS[name], name, images=(1, SIZE))
    batch = random_episodes(tasks=1, shots=1, queries=1, size=SIZE)

    def measured(steps):
        gc.collect()
        with Held() as held, torch.no_grad():
            evaluation(model, steps).update(objective, learner, batch, vmap)
        return held.peak

    assert measured(4) <= 1.02 * measured(2)


def test_memory_of_a_generator_that_classifies_does_not_grow_with_the_query_images():
    """Each of them is judged in every class, so many of them at a time."""
    _, learner, objective = build_pair("pixel_transformer", "in_context", images=(1, 8))

    def measured(queries):
        episode = random_episodes(tasks=1, shots=1, queries=queries, size=8)
        support, query = (Shots(*(leaf[0] for leaf in part)) for part in episode[:2])
        gc.collect()
        with Held() as held, torch.no_grad():
            phi = learner.adapt(objective, objective.params(), support)
            class_logits(objective, phi, query, most=4 * 3 * 64)
        return held.peak - query.x.untyped_storage().nbytes()  # of which the counter sees a view

    assert measured(40) < 1.1 * measured(10)


@pytest.mark.parametrize("name", ["meta_sgd", "reptile", "multitask"])
def test_training_keeps_nothing_of_100_steps(name, tmp_path, monkeypatch):
    """The whole loop, with its checkpoints, validations and logs."""
    levels, step = [], Experiment.training_step

    def training_step(self, batch, index):
        if self.global_step in (30, 65, 99):
            levels.append(alive())
        return step(self, batch, index)

    monkeypatch.setattr(Experiment, "training_step", training_step)
    monkeypatch.setattr(train, "_evaluate", lambda *args: 0.0)
    intervals = ["trainer.val_check_interval=25", "trainer.log_every_n_steps=1", "checkpoint_every=0.3"]
    cfg = config_for(name, *intervals, "trainer.max_steps=100")
    cfg.task.update({"batch": 1, "ways": 2, "shots": 1, "queries": 1, "val_episodes": 1, "eval_batch": 1})
    cfg.model.update({"ways": 2} if "ways" in cfg.model else {})
    cfg.learner.update({key: 1 for key in ("steps", "test_steps") if cfg.learner.get(key)})
    train.train(run_of(cfg, tmp_path), lambda text: None)
    assert len(levels) == 3
    assert max(levels) < 1.01 * levels[0], "a batch more or less may be under way"
