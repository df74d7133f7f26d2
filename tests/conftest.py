"""What the tests share: composing configurations, drawing random episodes."""

import copy
import gc
import os
from functools import cache
from pathlib import Path
from zlib import crc32

import pytest
import quick_composition
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from metagen.config.compose import plain
from metagen.config.tree import conf_dir
from metagen.core.episode import Episode, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.learners.implicit import Implicit
from metagen.runs.run import Run

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Tests that run beside each other share the cores.
    THREADS = max(1, torch.get_num_threads() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    torch.set_num_threads(THREADS)
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))  # of the processes that they start

quick_composition.install()
gc.set_threshold(10_000, 20, 20)


def pytest_collection_finish():
    """Let the garbage collector look at nothing that stays to the end, such as what the imports made."""
    gc.collect()
    gc.freeze()


def choices(group: str) -> list[str]:
    """Every choice of a config group, found by globbing: a new file enrols itself."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


def composed(*overrides: str, whole: bool = False):
    """A configuration; ``whole``: with Hydra's own, which holds the choices."""
    return copy.deepcopy(_composed(overrides, whole))


@cache
def _composed(overrides, whole):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=whole)


def random_shots(tasks, ways, shots, seed, dtype=torch.float64, size=28, channels=1):
    shape = (tasks, ways, shots, channels, size, size)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, dtype=dtype, generator=generator)
    # Every class has an image of its own under the noise, so that there is something to adapt to.
    x = 0.5 * x + 0.5 * torch.rand(tasks, ways, 1, *shape[3:], dtype=dtype, generator=generator)
    y = torch.arange(ways)[None, :, None].expand(tasks, ways, shots)
    return Shots(x, y, rng.fold_in(rng.key(seed), torch.arange(tasks)))


def random_episodes(tasks=2, ways=3, shots=2, queries=2, seed=0, dtype=torch.float64, classes=8, size=28):
    picks = rng.subset(rng.fold_in(rng.key(seed, 7), torch.arange(tasks)), classes, ways)
    support = random_shots(tasks, ways, shots, seed + 1, dtype, size)
    return Episode(support, random_shots(tasks, ways, queries, seed + 2, dtype, size), picks)


def narrow(node):
    """A model's configuration with an eighth of every width (an integer of 16 or more)."""
    fixed = ("ways", "size", "longest")
    return node | {
        k: max(4, v // 32 * 4) for k, v in node.items() if isinstance(v, int) and v >= 16 and k not in fixed
    }


@cache
def _node(group, *overrides):
    return OmegaConf.to_container(_composed(overrides, False)[group], resolve=True)


def learner_of(name):
    """A learner as its choice composes it."""
    return instantiate(copy.deepcopy(_node("learner", f"learner={name}")))


def of_images(node, channels, size):
    """A node of a configuration for images of another size and colour, by the keys that say so."""
    wanted = {"size": size, "channels": channels, "colours": channels}
    if "colours" in node:  # the channels of a generator are those of its maps
        del wanted["channels"]
    inner = {k: of_images(v, channels, size) for k, v in node.items() if k == "start" and isinstance(v, dict)}
    return node | {k: v for k, v in wanted.items() if k in node} | inner


def _part(group, images, *overrides):
    """A narrow model, or a learner."""
    node = of_images(copy.deepcopy(_node(group, *overrides)), *images)
    return instantiate(narrow(node) if group == "model" else node)


@cache
def _kept(*of_a_part):
    """The same, of which every caller takes a copy."""
    torch.manual_seed(0)
    return _part(*of_a_part)


def build_pair(model_name, learner_name, ways=3, classes=8, extra=(), images=(1, 28), kept=True):
    """Model, learner and objective in float64, bound; raises MetagenError where they do not fit.

    ``images`` are the channels and the side of an image. ``kept``: copies of parts that were built before,
    each from the same random numbers, or of ones that are built one after the other.
    """
    of_model, of_learner, ways = (f"model={model_name}",), (f"learner={learner_name}",), f"task.ways={ways}"
    if extra:
        # They may name keys of both.
        of_model = of_learner = (*of_model, *of_learner, *extra)
    parts = ("model", images, *of_model, ways), ("learner", images, *of_learner, ways)
    torch.manual_seed(0)
    model, learner = (copy.deepcopy(_kept(*part)) if kept else _part(*part) for part in parts)
    if kept:
        torch.manual_seed(0)
    objective = Objective(model.double())
    learner.bind(objective, classes)
    # Two steps show what five would: the second one depends on the first.
    learner.steps = min(learner.steps, 2)
    if isinstance(learner.gradient, Implicit):
        learner.gradient.cg_steps = 2
    return model, learner.double(), objective


@cache
def _pairs():
    """The pairs that fit, with the learner; the errors of the others; the models of a surrogate loss."""
    fit, refused, surrogate = {}, {}, set()
    for name in choices("model"):
        for learner in choices("learner"):
            try:
                model, fit[name, learner], _ = build_pair(name, learner)
            except MetagenError as error:
                refused[name, learner] = str(error)
            else:
                surrogate |= {name} if model.surrogate else set()
    return fit, refused, surrogate


def sample(pairs):
    """Some of the pairs of model and learner, in which each of either is met."""
    chosen, met = [], set()
    for pair in sorted(pairs, key=lambda pair: crc32("-".join(pair).encode())):  # as if they were shuffled
        if not met.issuperset(pair):
            chosen.append(pair)
            met.update(pair)
    return chosen


def rest_slow(values, kept):
    """Parameters for ``parametrize``, with all but the ``kept`` ones marked ``slow``."""
    missing = set(kept) - set(values)
    assert not missing, missing
    return [one if one in kept else pytest.param(one, marks=pytest.mark.slow) for one in values]


def __getattr__(name):
    """The pairs, when a test module asks for them: building all of them takes seconds."""
    if name not in ("FITTING", "REFUSED", "PAIRS", "FEW_SHOT", "META_TRAINED", "SURROGATE"):
        raise AttributeError(name)
    fit, refused, surrogate = _pairs()
    return {
        "FITTING": fit,
        "REFUSED": refused,
        "SURROGATE": surrogate,
        "PAIRS": list(fit),
        "FEW_SHOT": [pair for pair, learner in fit.items() if learner.few_shot],
        "META_TRAINED": [pair for pair, learner in fit.items() if learner.meta_trained],
    }[name]


@pytest.fixture
def tmp_cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(cfg, folder, kind="resumed"):
    """A run of a composed configuration in ``folder``; a resumed one goes on from what is there."""
    config = plain(cfg)
    return Run(Path(folder).absolute(), config, config, [], {}, kind)
