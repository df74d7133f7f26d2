"""What a first step finds in a user's own model: noise, changes of itself, images looked at together."""

import pytest
import torch
from conftest import learner_of
from torch import nn

from metagen.core.model import Classifier
from metagen.errors import UsageError
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
