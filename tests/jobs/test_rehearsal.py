"""What a first step finds in a user's own model: noise, changes of itself, images looked at together."""

import pytest
import torch
from conftest import learner_of
from torch import nn

from metagen.core.model import Classifier, Generator
from metagen.errors import UsageError
from metagen.functional import rng
from metagen.jobs.rehearsal import rehearse
from metagen.training.module import Experiment

TASK = {"kind": "classify", "ways": 3, "shots": 1}


class Net(Classifier):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.readout = body, nn.Linear(64, 3)

    def features(self, x, support=None):
        return self.body(x).flatten(1)


class Noisy(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class Together(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return x


class Choosing(nn.Module):
    """What it does depends on numbers, of which vmap knows no single one."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def tried(body, learner="maml", vectorize="loop", **task):
    experiment = Experiment(
        Net(body), learner_of(learner), torch.optim.Adam, lambda optimizer: None, vectorize, classes=3
    )
    rehearse(experiment, TASK | task, (1, 8, 8))


@pytest.mark.parametrize("vectorize", ["loop", "vmap", "auto"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (Noisy(), r"the loss of Net differs for the same images: .*shots\.key"),
        (Together(), r"what Net says of an image depends on those beside it: .*GroupNorm.*BatchStatNorm"),
        (Counting(), r"model\.body\.seen changes whenever Net computes a loss"),
        (
            nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
            r"model\.body\.parametrizations.* changes",
        ),
    ],
    ids=["noise", "together", "changes", "spectral norm"],
)
def test_what_tasks_would_share_is_refused_in_one_line(body, says, vectorize):
    with pytest.raises(UsageError, match=says) as caught:
        tried(body, vectorize=vectorize)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("learner", ["maml", "scratch_adam", "imaml", "multitask"])
def test_norms_of_one_image_pass(learner):
    tried(nn.Sequential(nn.LayerNorm(8), nn.GroupNorm(1, 1), nn.InstanceNorm2d(1, affine=True)), learner)


def test_several_tasks_at_a_time_are_tried_as_such_and_one_as_it_comes():
    tried(Choosing(), vectorize="auto", batch=1, eval_batch=1)
    for several in ({"batch": 2, "eval_batch": 1}, {"batch": 1, "eval_batch": 2}):
        with pytest.raises(UsageError, match="a first step on 1 x 8 x 8 images fails"):
            tried(Choosing(), vectorize="auto", **several)


class Means(Generator):
    """The guide's generator of pixels that have a probability each."""

    def __init__(self) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(1, 64))

    def loss(self, shots):
        logits = self.context[shots.y]
        return nn.functional.binary_cross_entropy_with_logits(logits, shots.x.flatten(2))

    def sample(self, y, key):
        p = self.context[y].sigmoid()
        return (rng.uniform(key, p.shape, p.dtype) < p).to(p.dtype).unflatten(1, (1, 8, 8))


def generator_tried(learner="scratch", vectorize="loop", **methods):
    model = type("Mine", (Means,), methods)()
    experiment = Experiment(
        model, learner_of(learner), torch.optim.Adam, lambda optimizer: None, vectorize, classes=3
    )
    rehearse(experiment, {"kind": "generate", "ways": 3, "shots": 1}, (1, 8, 8))


def of_every_image(self, shots):
    logits = self.context[shots.y]
    return nn.functional.binary_cross_entropy_with_logits(logits, shots.x.flatten(2), reduction="none").mean(
        2
    )


@pytest.mark.parametrize("vectorize", ["loop", "vmap"])
@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ({"sample": Generator.sample}, r"fails \(there is no sample\)"),
        ({"sample": lambda self, y, key: torch.rand(len(y), 1, 8, 8)}, "others for the same key: .*from key"),
        ({"sample": lambda self, y, key: Means.sample(self, y, key).flatten(1)},
         r"Mine\.sample drew \(2, 64\) for 2 classes: return images \(2, 1, 8, 8\)"),
        ({"sample": lambda self, y, key: 255 * Means.sample(self, y, key)}, r"from 0 to 255: .*in \[0, 1\]"),
        ({"sample": lambda self, y, key: Means.sample(self, y, key) / 0}, r"drew pixels from"),
        ({"loss": lambda self, shots: Means.loss(self, shots) * float("nan")}, "the loss of Mine is nan for"),
        ({"loss": of_every_image}, r"the loss of Mine has the shape \(2, 1\): return a scalar"),
        ({"loss": lambda self, shots: {}["missing"]},
         r"KeyError: 'missing', in test_rehearsal\.py, line \d+, <lambda>"),
    ],
    ids=["no sample", "noise", "shape", "range", "not finite", "nan", "no scalar", "own fault"],
)  # fmt: skip
def test_what_a_generator_draws_or_loses_is_looked_at_beforehand(methods, says, vectorize):
    generator_tried()
    with pytest.raises(UsageError, match=says):
        generator_tried(vectorize=vectorize, **methods)


def test_a_model_that_draws_pixel_by_pixel_is_not_asked_to():
    generator_tried(sample=Generator.sample, pixelwise=True)
