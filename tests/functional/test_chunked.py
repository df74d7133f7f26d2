"""A batch of tasks, part by part and in threads, equals the whole."""

import pytest
import torch
from conftest import FEW_SHOT, META_TRAINED, build_pair, random_episodes

from metagen.core.episode import Shots
from metagen.errors import MetagenError
from metagen.functional.chunked import LARGEST, MOST, NARROW, WIDEST, plan, replica, size_of
from metagen.training.module import Experiment

CPU = torch.device("cpu")
TRAINED = sorted((pair for pair in FEW_SHOT if pair in META_TRAINED), key=lambda pair: pair[0] != "vae")
CHOSEN = sorted({*dict(TRAINED).items(), *((m, n) for n, m in {n: m for m, n in TRAINED[::-1]}.items())})
"""Every model with one of its learners, and every learner with one of its models, the VAE if it fits."""


def loss_and_gradient(model, learner, episodes, **how):
    experiment = Experiment(model, learner, optimizer=None, classes=8, **how)
    experiment.zero_grad()
    loss = experiment.meta_loss(episodes)
    loss.backward()
    grads = [p.grad.flatten() for p in experiment.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(grads)


@pytest.mark.parametrize(("model", "learner"), CHOSEN)
def test_chunks_in_threads_give_the_gradient_of_the_whole(model, learner):
    model, learner, _ = build_pair(model, learner, images=(1, 16))
    episodes = random_episodes(tasks=3, size=16)
    whole = loss_and_gradient(model, learner, episodes, vectorize="loop")
    parts = loss_and_gradient(model, learner, episodes, chunk=1, workers=2)
    for a, b in zip(whole, parts, strict=True):
        assert (a - b).norm() <= 1e-10 * a.norm()


def test_the_plan_keeps_every_core_busy():
    threads = torch.get_num_threads()
    many = plan(1000, CPU)
    assert many.workers == threads
    assert many.chunk == LARGEST
    few = plan(1, CPU)
    assert few == (1, 1)
    assert plan(32, CPU, chunk=4, workers=3) == (4, 3)
    assert plan(32, torch.device("cuda")) == (32, 1)


def test_wide_tasks_come_in_small_chunks():
    for size, chunk in ((1, LARGEST), (WIDEST // 4, 4), (WIDEST * 9, 1)):
        assert plan(1000, CPU, workers=2, width=lambda size=size: size).chunk == chunk
    assert plan(1000, CPU, chunk=5, width=lambda: pytest.fail("not asked for")).chunk == 5


def test_narrow_tasks_go_at_once():
    most = NARROW // 64
    assert plan(64, CPU, width=lambda: most) == (64, 1)
    assert plan(64, CPU, width=lambda: most + 1).chunk <= LARGEST
    assert plan(64, CPU, workers=2, width=lambda: 1) == (LARGEST, 2)
    assert plan(64, CPU, chunk=8, width=lambda: pytest.fail("not asked for")).chunk == 8


def test_all_chunks_together_remember_at_most_so_much():
    each = MOST // 8
    assert plan(8, CPU, width=lambda: 1, kept=lambda: each) == (8, 1)
    assert plan(8, CPU, width=lambda: 1, kept=lambda: each + 1) == (7, 1)
    assert plan(64, CPU, workers=2, width=lambda: 1, kept=lambda: each) == (4, 2)
    assert plan(64, CPU, workers=2, width=lambda: 1, kept=lambda: 2 * MOST) == (1, 2)
    assert plan(64, CPU, chunk=16, kept=lambda: pytest.fail("not asked for")).chunk == 16


def test_what_two_operations_keep_counts_once():
    x = torch.ones(1000, requires_grad=True)
    assert size_of(lambda: (x.exp() * x).sum()) == (4000, 8000)  # x and its exponential


def test_the_width_is_that_of_the_largest_activation():
    model, _, objective = build_pair("conv4", "maml")
    query = random_episodes(tasks=1).query
    filters, images = model.body[0].conv.out_channels, 6
    assert (
        size_of(lambda: objective.loss({}, Shots(*(part[0] for part in query)))).largest
        == images * filters * 28**2 * 8
    )


@pytest.mark.parametrize(("args", "message"), [({"chunk": 0}, "chunk=0"), ({"workers": -1}, "workers=-1")])
def test_sizes_below_one_are_refused(args, message):
    with pytest.raises(MetagenError, match=message):
        plan(8, CPU, **args)


def test_threads_are_for_the_cpu():
    with pytest.raises(MetagenError, match="workers=null"):
        plan(8, torch.device("cuda"), workers=2)


def test_a_replica_shares_tensors_but_not_their_places():
    model, _, _ = build_pair("conv4", "maml")
    twin = replica(model)
    assert [id(p) for p in twin.parameters()] == [id(p) for p in model.parameters()]
    twin.readout.weight = torch.nn.Parameter(torch.zeros(1, 1))
    assert model.readout.weight.numel() > 1
