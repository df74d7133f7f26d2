"""The warp control: copies at strength 0, one affine map at others, sharp, of any channels and tasks."""

import math

import pytest
import torch
from conftest import composed, learner_of
from hydra.utils import instantiate

from metagen.core.episode import Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.resample import affine, sharply
from metagen.models.warp import Warp

SPREAD = {"turn": 0.1, "shear": 0.1, "scale": 0.2, "shift": 0.15}
S = 12


def support(ways=2, shots=3, channels=1):
    x = torch.zeros(ways, shots, channels, S, S)
    for n in range(ways):
        for k in range(shots):
            x[n, k, :, 2 + n + k : 6 + n + k, 3:9] = 1
    return Shots(x, torch.arange(ways)[:, None].expand(ways, shots), rng.key(0))


def drawn(model, shots, count=4, key=1):
    objective, learner = Objective(model), learner_of("in_context")
    learner.bind(objective, 1)
    phi = learner.adapt(objective, objective.params(), shots)
    y = torch.arange(len(shots.x)).repeat_interleave(count)
    return objective.call("sample", phi, y, rng.key(key)).unflatten(0, (-1, count))


def test_strength_zero_copies_images_of_the_own_class_and_all_of_them():
    shots = support()
    out = drawn(Warp(S, SPREAD, strength=0), shots, 30)
    gaps = (out[:, :, None] - shots.x[:, None]).abs().amax((-3, -2, -1))
    assert gaps.min(-1).values.max() < 0.15
    assert all(set(row.tolist()) == {0, 1, 2} for row in gaps.argmin(-1))


def test_a_map_moves_a_square_to_where_its_formula_says():
    x = torch.zeros(1, 1, 40, 40)
    x[..., 16:24, 16:24] = 1
    numbers = torch.tensor([[0.0, 0.0, math.log(2), math.log(2), 0.5, 0.0]])  # looks 10 pixels right
    out = sharply(x, affine(numbers, 120), 12)
    rows, columns = (out[0, 0] > 0.5).nonzero().unbind(-1)
    assert (rows.min(), rows.max()) == (18, 21), "half as high, in the middle"
    assert (columns.min(), columns.max()) == (13, 16), "half as wide, and 5 pixels to the left"
    turned = sharply(x.roll(8, -1), affine(torch.tensor([[math.pi / 2, 0, 0, 0, 0, 0]]), 120), 12)
    assert torch.allclose(turned.mT.flip(-1), x.roll(8, -1), atol=0.15), "by a quarter"


def test_strokes_stay_sharp():
    x = torch.zeros(1, 1, 28, 28)
    x[..., 4:24, 13:15] = 1
    where = affine(torch.tensor([[0.3, 0, 0, 0, 0.01, 0.02]]), 84)
    ink = [float((out := sharply(x, where, contrast)).square().sum() / out.sum()) for contrast in (0, 12)]
    assert ink[1] > ink[0] + 0.04


def test_numbers_have_the_deviations_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "metagen.models.warp.affine", lambda numbers, side: seen.append(numbers) or affine(numbers, side)
    )
    drawn(Warp(S, SPREAD, strength=0.5), support(), 2000)
    expected = torch.tensor([0.05, 0.05, 0.1, 0.1, 0.075, 0.075])
    assert torch.allclose(seen[0].std(0), expected, rtol=0.05)
    assert seen[0].mean(0).abs().max() < 0.01


def test_tasks_at_once_equal_tasks_one_by_one_and_colours_move_together():
    model, shots = Warp(S, SPREAD), support(channels=3)
    objective = Objective(model)
    memory = torch.stack([shots.x, shots.x.flip(-1)])
    keys = rng.fold_in(rng.key(2), torch.arange(2))
    y = torch.tensor([0, 1, 1])
    both = torch.func.vmap(lambda m, k: objective.call("sample", {"memory": m}, y, k))(memory, keys)
    alone = torch.stack(
        [objective.call("sample", {"memory": m}, y, k) for m, k in zip(memory, keys, strict=True)]
    )
    assert torch.allclose(both, alone, atol=1e-6)
    assert torch.allclose(both[:, :, 0], both[:, :, 2]), "the same map for all channels"


def test_the_loss_is_the_distance_to_the_nearest_support_image():
    shots, model = support(), Warp(S, SPREAD)
    query = shots._replace(x=shots.x.roll(1, 1))
    assert Objective(model).loss({"memory": shots.x}, query) == 0
    assert Objective(model).loss({}, query) == pytest.approx(float(query.x.square().mean()))


def test_nothing_is_trained_and_the_learner_says_so():
    learner = learner_of("in_context")
    learner.bind(Objective(Warp(S, SPREAD)), 1)
    assert not learner.meta_trained
    learner = learner_of("in_context")
    learner.bind(Objective(instantiate(composed("model=pixel_transformer").model)), 1)
    assert learner.meta_trained


def test_bad_arguments_and_an_empty_support_are_refused():
    with pytest.raises(MetagenError, match="strength=-1"):
        Warp(S, SPREAD, strength=-1)
    with pytest.raises(MetagenError, match=r"expected \['scale', 'shear', 'shift', 'turn'\]"):
        Warp(S, {"turn": 1.0})
    with pytest.raises(MetagenError, match=r"task\.shots=1"):
        Warp(S, SPREAD).sample(torch.zeros(1, dtype=torch.int64), rng.key(0))
