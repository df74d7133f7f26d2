"""Training, adaptation and drawing on a GPU, as far as a machine without one can tell.

Every learner of ``conf`` with one model, every model with one learner: no operation mixes devices, nothing
waits for a number, and nothing is copied to the GPU.
"""

import pytest
import torch
from conftest import build_pair, choices, random_episodes
from pretended_gpu import GPU, MixedDevicesError, PretendedGPU, on_gpu

from metagen.core.episode import Shots
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.vectorize import tree_map, vmap

LEARNERS = ("amortized", "in_context", "reptile", "maml")
MODELS = ("conv4", "basenet", "vae", "deformation", "pixel_transformer")


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    # torch knows no autocast of the device meta.
    asked = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind != "meta" and asked(kind))


def pair(model, learner):
    """A pair on the GPU with its objective and episodes, or None where the two do not fit."""
    side = 8 if model == "pixel_transformer" else 28  # it draws one patch after the other
    try:
        net, method, objective = build_pair(model, learner, images=(1, side))
    except MetagenError:
        return None
    on_gpu(net.float()), on_gpu(method.float())
    episodes = random_episodes(dtype=torch.float32)
    if not method.few_shot:
        rows = [Shots(s.x.flatten(1, 2)[:, None], s.y.flatten(1, 2)[:, None], s.key) for s in episodes[:2]]
        episodes = episodes._replace(support=rows[0], query=rows[1])
    episodes = tree_map(lambda leaf: leaf[..., :side, :side] if leaf.dim() == 6 else leaf, episodes)
    return method, objective, on_gpu(episodes)


def check_step(method, objective, episodes):
    params = objective.params()
    with PretendedGPU() as gpu:
        for _ in range(2):  # a constant is copied to the GPU once
            gpu.copies.clear()
            if method.meta_trained:
                loss = vmap(lambda one: method.meta_loss(objective, params, one, 3))(episodes).mean()
                assert loss.device == GPU
                if loss.requires_grad:
                    loss.backward()
            with torch.no_grad():
                phi = vmap(lambda shots: method.adapt(objective, params, shots, 2))(episodes.support)
                assert vmap(objective.query_loss)(phi, episodes).device == GPU
            if not gpu.copies:
                return
    raise AssertionError(gpu.copies)


@pytest.mark.parametrize("learner", choices("learner"))
def test_a_step_stays_on_the_gpu_and_waits_for_nothing(learner):
    check_step(*next(found for model in MODELS if (found := pair(model, learner))))


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_does_and_draws_there(model):
    method, objective, episodes = next(found for name in LEARNERS if (found := pair(model, name)))
    if model not in MODELS:
        check_step(method, objective, episodes)
    if objective.model.kind != "generate":
        return
    params = objective.params()
    with PretendedGPU() as gpu, torch.no_grad():
        phi = vmap(lambda shots: method.adapt(objective, params, shots, 1))(episodes.support)
        y = torch.arange(3, device=GPU).repeat_interleave(2)
        drawn = vmap(lambda phi, key: objective.call("sample", {**params, **phi}, y, key))(
            phi, episodes.query.key
        )
    assert drawn.device == GPU
    assert gpu.copies == []


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: bool((x > 0).any()),
        lambda x: x.cpu(),
        lambda x: x + torch.ones(3),
        lambda x: x.index_select(0, torch.tensor([0])),
    ],
)
def test_what_a_gpu_would_wait_for_is_refused(waits):
    with PretendedGPU(), pytest.raises((RuntimeError, NotImplementedError, MixedDevicesError)):
        waits(torch.ones(3, device=GPU))


@pytest.mark.parametrize(
    "copies",
    [
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.new_tensor(1.0),
        lambda x: torch.ones(3).to(x.device),
    ],
)
def test_copies_are_counted(copies):
    with PretendedGPU() as gpu:
        copies(torch.ones(3, device=GPU))
    assert gpu.copies


def test_numbers_fold_in_as_tensors_do():
    key = rng.key(3, 1)
    for word in (0, 5, 2**40, -1, 2**63 - 1, -(2**63)):
        assert torch.equal(rng.fold_in(key, word), rng.fold_in(key, torch.tensor(word)))
