"""Deformations: splines and registration against known maps, flows against closed forms, many tasks."""

import math

import pytest
import torch
from conftest import learner_of
from torch import nn

from metagen.core.episode import Episode, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.deformation import Deformed
from metagen.models.registration import UNITS, Deformation, gaussian_taps, spline_basis

S = 16


def tiny(**kwargs):
    torch.manual_seed(0)
    small = {"size": S, "points": 4, "features": 8, "channels": 8, "hidden": 16, "sample_steps": 3}
    return Deformed(**{**small, **kwargs})


def crosses(ways=2, shots=3, colours=1, seed=0):
    """A cross at a random place for each image."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(ways, shots, colours, S, S)
    for image in x.flatten(0, 1):
        row, column = torch.randint(5, S - 5, (2,), generator=generator)
        image[:, row - 3 : row + 4, column] = 1
        image[:, row, column - 3 : column + 4] = 1
    return Shots(x, torch.arange(ways)[:, None].expand(ways, shots), rng.key(seed))


def test_splines_are_a_partition_of_unity_and_reproduce_lines():
    basis = spline_basis(30, 7).double()
    assert torch.allclose(basis.sum(1), torch.ones(30, dtype=torch.float64), atol=1e-6)
    at = (torch.arange(30) + 0.5) / 30 * 6
    line = basis @ torch.arange(7.0).double()
    inner = (at > 1) & (at < 5)
    assert torch.allclose(line[inner].float(), at[inner], atol=1e-5)
    assert float(gaussian_taps(2.0).sum()) == pytest.approx(1)


def test_equal_displacements_are_a_shift_and_zero_changes_nothing():
    deform, x = Deformation(S, 4, 0.1, 0.3, 12.0), crosses().x[:, 0]
    shift, points = torch.zeros(2, deform.numbers), torch.zeros(2, deform.numbers)
    shift[:, 4] = 0.25 / UNITS[4]
    points[:, 6 : 6 + 16] = 0.25 / 0.1
    moved = deform.soft(points, x)
    assert torch.allclose(moved, deform.soft(shift, x), atol=1e-5)
    assert torch.allclose(moved[..., :-2], x[..., 2:], atol=1e-5), "a quarter of half a side is two pixels"
    assert torch.allclose(deform.soft(torch.zeros_like(shift), x), x, atol=1e-5)
    assert torch.allclose(deform.sharp(torch.zeros_like(shift), x), x, atol=0.15)


def test_registration_finds_a_known_map():
    deform, a = Deformation(S, 4, 0.03, 0.3, 12.0), crosses(4, 1).x[:, 0]
    truth = torch.zeros(4, deform.numbers)
    truth[:, 4], truth[:, 2] = 1.2, 0.8
    b = deform.soft(truth, a)
    pair = deform.blurred(a), deform.blurred(b)
    z = deform.refine(torch.zeros_like(truth), *pair, 80, 0.3)
    assert deform.gap(torch.zeros_like(z), pair[0][1], pair[1][1]).min() > 0.2
    assert deform.gap(z, pair[0][1], pair[1][1]).max() < 0.05
    assert (z[:, 4] - 1.2).abs().max() < 0.6


def test_the_energy_of_no_change_between_equal_images_is_zero_and_bending_costs():
    deform, a = Deformation(S, 5, 0.03, 0.3, 12.0), crosses(2, 1).x[:, 0]
    z = torch.zeros(2, deform.numbers)
    assert deform.energy(z, a, a).abs().max() < 1e-6
    z[:, 6 + 12] = 3.0  # one control point alone
    gap, energy = deform.gap(z, a, a), deform.energy(z, a, a)
    d = 3 * 0.03
    # second differences of a peak are 1, -2, 1 along rows and along columns
    assert torch.allclose(energy - gap, torch.full((2,), 0.3 * (2 * 6 + 0.3) * d**2), rtol=1e-3)


def test_the_pen_follows_its_estimate_to_the_image_and_the_density_its_velocity():
    model, c = tiny(), crosses().x[:, 0]
    model.pen.forward = lambda x, t, c, features: 40 * (c - 0.5)
    for start in (0.0, 0.5):
        model.start = start
        assert torch.allclose(model.redraw(c, torch.zeros(2, 16), rng.key(1)), c, atol=1e-5)
    seen, still = [], nn.Module()
    still.forward = lambda z, t, features: torch.ones_like(z)
    model.velocity = still
    model.deform.sharp = lambda z, images: seen.append(z) or images
    Objective(model).call("sample", {"memory": crosses().x}, torch.tensor([0, 1]), rng.key(3))
    e = rng.normal(rng.fold_in(rng.key(3), 2), (2, model.deform.numbers))
    assert torch.allclose(seen[0], e + 1, atol=1e-5)


def test_pairs_that_cannot_be_registered_teach_the_flows_nothing():
    model = tiny()
    shots, query = crosses(1, 1), crosses(1, 1, seed=5)
    query = query._replace(x=torch.ones_like(query.x))  # nothing like a cross
    Objective(model).loss({"memory": shots.x}, query).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.pen.parameters())
    assert any(p.grad.any() for p in model.guess.parameters())


def share_of_black(**strengths):
    """Of drawings that are blank or black by the toss of a coin, each ratio being three to one for black."""
    model = tiny(candidates=32, **strengths)
    model.draw = lambda a, features, key: (rng.uniform(key, (len(a), 1, 1, 1)) < 0.5).float().expand_as(a)
    model.critic.forward = lambda a, x: math.log(3) * x[:, 0, 0, 0]
    model.recogniser.forward = lambda x, m: math.log(3) * x[:, 0, 0, 0]
    y = torch.zeros(400, dtype=torch.int64)
    return float(Objective(model).call("sample", {"memory": crosses(1, 2).x}, y, rng.key(7)).mean())


@pytest.mark.parametrize(
    ("strengths", "share"),
    [
        ({"selection": 0.0}, 0.5),
        ({"selection": 1.0}, 0.75),
        ({"selection": 50.0}, 1.0),
        ({"selection": 0.0, "guidance": 1.0}, 0.75),
        ({"selection": 0.0, "guidance": 2.0}, 0.9),
        ({"selection": 1.0, "guidance": 1.0}, 0.9),
    ],
)
def test_a_choice_among_many_candidates_turns_the_density_into_that_of_its_ratios(strengths, share):
    assert share_of_black(**strengths) == pytest.approx(share, abs=0.08)


def trained(model):
    """Train for 30 steps; the losses, and the parts that have a gradient."""
    objective, shots = Objective(model), crosses(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = objective.loss({"memory": shots.x}, crosses(4, 3, seed=step + 1))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    moved = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    return losses, {name.split(".")[0] for name in moved}


def test_what_chooses_learns_alone_and_tells_blank_images():
    model = tiny(learn="critic", redrawn=False)
    model.draw = lambda a, features, key: torch.zeros_like(a)
    losses, parts = trained(model)
    assert parts == {"critic", "recogniser"}
    assert losses[-1] < losses[0] - 0.5
    a, b = crosses(4, 1).x[:, 0], crosses(4, 1, seed=9).x[:, 0]
    with torch.no_grad():
        assert model.critic(a, b).min() > 0 > model.critic(a, torch.zeros_like(a)).max()
        assert model.critic.loss(a, b, torch.zeros_like(a)) < 0.3


@pytest.mark.slow
def test_the_pen_learns_alone_on_what_was_learned_without_it():
    losses, parts = trained(tiny(learn="pen", least_likeness=-9.0))
    assert parts == {"pen"}
    assert losses[0] == pytest.approx(math.log(2), abs=0.2)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_an_autoregressive_pen_learns_alone_and_together():
    losses, parts = trained(tiny(learn="pen", pen_density="autoregressive", least_likeness=-9.0))
    assert parts == {"pen"}
    assert losses[0] == pytest.approx(math.log(2) + math.log(256) / 8, abs=0.3), (
        "a bit of ink and of grey a pixel"
    )
    assert losses[-1] < 0.5 * losses[0]
    _, parts = trained(tiny(pen_density="autoregressive", least_likeness=-9.0))
    assert parts == {"pen", "velocity", "see", "guess"}


def test_an_autoregressive_pen_draws_ink_alone():
    with pytest.raises(MetagenError, match=r"model\.pen_density=autoregressive .* data\.channels=1"):
        tiny(colours=3, pen_density="autoregressive")
    with pytest.raises(MetagenError, match=r"model\.pen_channels=6: expected a multiple of 4"):
        tiny(pen_channels=6, pen_density="autoregressive")


def test_a_pen_learns_only_where_there_is_one():
    with pytest.raises(MetagenError, match=r"model\.learn=pen: there is none; set model\.pen=true"):
        tiny(learn="pen", pen=False)


@pytest.mark.parametrize("learner", [learner_of("in_context")])
def test_samples_of_many_tasks_are_those_of_one_and_depend_on_the_key_alone(learner):
    model = tiny(colours=3, candidates=2)
    objective, shots = Objective(model), crosses(colours=3)
    learner.bind(objective, 4)
    phi = learner.adapt(objective, objective.params(), shots)
    assert torch.equal(phi["memory"], shots.x)
    y, keys = torch.tensor([0, 1, 1]), rng.fold_in(rng.key(2), torch.arange(2))
    with torch.no_grad():
        both = torch.func.vmap(lambda k: objective.call("sample", phi, y, k))(keys)
        alone = torch.stack([objective.call("sample", phi, y, k) for k in keys])
    assert both.shape == (2, 3, 3, S, S)
    assert torch.allclose(both, alone, atol=1e-5)
    assert both.min() >= 0
    assert both.max() <= 1
    assert not torch.allclose(both[0], both[1])


def test_each_query_sees_its_own_image_and_one_to_all_of_the_others():
    model, shots = tiny(), crosses(1, 4)
    model.see = nn.Flatten()  # features are the pixels
    y = torch.zeros(200, dtype=torch.int64)
    a, features = Objective(model).call("_given", {"memory": shots.x}, y, rng.key(0), True)
    own, mean = features.chunk(2, -1)
    assert torch.equal(own, a.flatten(1))
    sums = mean.sum(-1) / shots.x[0, 0].sum()
    assert torch.allclose(sums, torch.ones(200), atol=1e-5), "a mean of crosses, whatever their number"
    most = mean.amax(-1)
    assert {round(1 / float(m)) for m in most} >= {1, 2}


def test_training_lowers_the_loss_of_other_crosses():
    model, learner = tiny(refine_steps=4), learner_of("in_context")
    objective = Objective(model)
    learner.bind(objective, 4)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def loss(seed):
        episode = Episode(crosses(4, 2, seed=seed), crosses(4, 6, seed=seed + 1000), torch.arange(4))
        return learner.meta_loss(objective, objective.params(), episode)

    with torch.no_grad():
        before = sum(float(loss(seed)) for seed in range(5000, 5004))
    for step in range(60):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    with torch.no_grad():
        after = sum(float(loss(seed)) for seed in range(5000, 5004))
    assert after < 0.8 * before


def test_without_a_pen_samples_are_deformed_images_and_the_loss_has_one_term_less():
    torch.manual_seed(0)
    model, memory = tiny(pen=False), {"memory": crosses().x}
    assert not any(name.startswith("pen") for name, _ in model.named_parameters())
    model.draw = lambda a, features, key: a
    x = Objective(model).call("sample", memory, torch.tensor([1, 0]), rng.key(0))
    assert torch.equal(x.flatten(1).sum(1), torch.full((2,), 13.0)), "the pixels of a cross"
    with_pen = tiny()
    with_pen.load_state_dict(model.state_dict(), strict=False)
    query = crosses(2, 2)  # the same images: all of them can be registered
    losses = [Objective(each).loss(memory, query).item() for each in (model, with_pen)]
    assert losses[1] - losses[0] == pytest.approx(math.log(2), abs=0.2), "an untrained pen: a bit a pixel"


def test_bad_arguments_and_an_empty_support_are_refused():
    for wrong in (
        {"size": 10},
        {"points": 3},
        {"channels": 0},
        {"noise": -1.0},
        {"start": 1.0},
        {"colours": 2},
        {"candidates": 0},
        {"learn": "paper"},
    ):
        with pytest.raises(MetagenError, match=f"{next(iter(wrong))}="):
            tiny(**wrong)
    with pytest.raises(MetagenError, match=r"task\.shots=1"):
        tiny().loss(crosses())


def test_registration_in_colour_compares_forms_and_not_colours():
    deform, a = Deformation(S, 4, 0.03, 0.3, 0.0, colours=3), crosses(4, 1, colours=3).x[:, 0]
    paint = torch.tensor([[0.1, -0.5, 0.2], [0.3, 0.1, -0.2], [0.0, 0.4, 0.3]])
    ground = torch.tensor([0.6, 0.4, 0.3])[:, None, None]
    b = torch.einsum("dc,bchw->bdhw", paint, a) + ground
    same, still = torch.zeros(4, deform.numbers), a.new_ones(4, 3, S, S) * 0.5
    assert deform.gap(same, a, b).max() < 0.02, "the same form in other colours"
    spread = b.flatten(2).var(2, correction=0).mean(1)
    flat = deform.gap(same, still, b)
    assert torch.allclose(flat, spread / (spread + 1e-3), atol=1e-4), "a flat image explains nothing"
    truth = torch.zeros(4, deform.numbers)
    truth[:, 4] = 1.2
    moved = deform.blurred(deform.soft(truth, b))
    z = deform.refine(same, deform.blurred(a), moved, 80, 0.3)
    assert deform.gap(same, deform.blurred(a)[1], moved[1]).min() > 0.3
    assert deform.gap(z, deform.blurred(a)[1], moved[1]).max() < 0.1
    assert (z[:, 4] - 1.2).abs().max() < 0.6


def test_a_relative_density_is_told_the_mean_guess_over_the_images_that_are_shown():
    model, support = tiny(relative=True), crosses(1, 3).x
    numbers = model.deform.numbers
    support[0, :, 0, 0, 0] = torch.tensor([1.0, 2.0, 6.0])
    model.guess.forward = lambda a, b: (b[:, 0, 0, :1] - 10 * a[:, 0, 0, :1]).expand(-1, numbers)
    seen, still = [], nn.Module()
    still.forward = lambda z, t, features: seen.append(features.detach()) or torch.zeros_like(z)
    model.velocity = still
    Objective(model).call("sample", {"memory": support}, torch.zeros(50, dtype=torch.int64), rng.key(3))
    known = seen[0][:, -numbers:]
    assert {round(float(number), 3) for number in known[:, 0]} == {3.0 - 10, 3.0 - 20, 3.0 - 60}
    assert tiny(relative=True).velocity.given.in_features == tiny().velocity.given.in_features + numbers
