"""Generators with learners, in grey and colour, of four sizes: a training step and a sample each.

Every learner and every model meets both colours and all sizes; those of them that only a learner needs are
``slow``. ``test_pairs`` has every model with every learner.
"""

from functools import cache
from itertools import combinations, product

import pytest
import torch
from conftest import FITTING, build_pair, choices, composed, narrow, of_images, random_shots
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from metagen.core.episode import Episode
from metagen.functional import rng

CHANNELS, SIZES = (1, 3), (16, 28, 32, 64)
GENERATORS = [name for name in choices("model") if name not in ("basenet", "conv4")]
REFUSED = {("pixel_transformer", 3, size) for size in SIZES} | {("pixel_transformer", 1, 64)}


@cache
def in_colour(name):
    """Whether a model draws images of three channels; one that does not say so draws grey ones."""
    if (name, 3, 28) in REFUSED:
        return False
    node = OmegaConf.to_container(composed(f"model={name}").model, resolve=True)
    return instantiate(narrow(of_images(node, 3, 28))).colours in (None, 3)


def cases():
    """Some (model, learner, channels, size) that fit, so many that any two of their values meet."""
    fit = [(m, n) for m, n in FITTING if m in GENERATORS]
    everything = [
        (*pair, c, s)
        for pair in fit
        for c, s in product(CHANNELS, SIZES)
        if (pair[0], c, s) not in REFUSED and (c == 1 or in_colour(pair[0]))
    ]
    return covering(
        everything, lambda case: set(combinations(enumerate(case), 2)) - {((0, case[0]), (1, case[1]))}
    )


def some_slow(chosen):
    quick = covering(chosen, lambda case: {(case[0], c) for c in case[2:]} | {case[1]})
    return [case if case in quick else pytest.param(*case, marks=pytest.mark.slow) for case in chosen]


def covering(everything, parts):
    """Few of the cases, in which everything is met that ``parts`` names of a case; greedily."""
    chosen, met = [], set()
    for at_least in range(len(parts(everything[0])), 0, -1):
        for case in everything:
            if len(parts(case) - met) >= at_least:
                chosen.append(case)
                met |= parts(case)
    return chosen


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors as small as these are not worth a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("model", "learner", "channels", "size"), some_slow(cases()))
def test_a_training_step_and_a_sample(model, learner, channels, size):
    model, learner, objective = build_pair(model, learner, images=(channels, size))
    support, query = (random_shots(1, 3, 1, seed, size=size, channels=channels) for seed in (1, 2))
    support, query = (part._replace(x=part.x[0], y=part.y[0], key=part.key[0]) for part in (support, query))
    if hasattr(model, "sample_steps"):
        model.sample_steps = 1
    params = objective.params()
    if learner.meta_trained:
        loss = learner.meta_loss(objective, params, Episode(support, query, torch.arange(3)))
        leaves = [p for p in [*params.values(), *learner.parameters()] if p.requires_grad]
        grads = [g for g in torch.autograd.grad(loss, leaves, allow_unused=True) if g is not None]
        assert any(g.abs().sum() > 0 for g in grads)
        assert all(g.isfinite().all() for g in grads)
    with torch.no_grad():
        phi = {**params, **learner.adapt(objective, params, support, min(learner.steps, 1))}
        drawn = objective.call("sample", phi, torch.tensor([0, 2]), rng.key(0))
    assert drawn.shape == (2, channels, size, size)
    assert drawn.isfinite().all()
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()


def test_every_model_that_has_a_key_for_colours_is_tried_in_colour():
    keyed = {name for name in GENERATORS if "colours" in composed(f"model={name}").model}
    assert len(keyed) > 5
    assert keyed - {model for model, channels, _ in REFUSED if channels == 3} == {
        model for model, _, channels, _ in cases() if channels == 3
    }


@pytest.mark.parametrize(("model", "channels", "size"), sorted(REFUSED))
def test_what_a_model_cannot_draw_is_refused_in_one_line(model, channels, size):
    cure = "set data.channels=1" if channels == 3 else "set data.size=32"
    with pytest.raises(InstantiationException, match=f"MetagenError.*{cure}"):
        build_pair(model, "in_context", images=(channels, size))
