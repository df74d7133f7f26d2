"""Two small smooth models that take every part of a learner, and all combinations of parts."""

from functools import cache
from itertools import combinations as pairs_of
from itertools import product

import torch
from torch import nn

from metagen.core.model import Classifier, Generator
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.gradients import Unrolled
from metagen.learners.hypernet import HyperNet
from metagen.learners.implicit import Implicit
from metagen.learners.low_rank_adapters import LowRankAdapters
from metagen.learners.lstm_rule import LstmRule
from metagen.learners.meta_curvature import MetaCurvature
from metagen.learners.meta_learner import MetaLearner
from metagen.learners.meta_losses import Displacement, Joint, MultiStep, Query, Sequence, Untrained
from metagen.learners.mlp_rule import MlpRule
from metagen.learners.modulations import FilmModulation
from metagen.learners.readers import Encoder, Memory, Prototypes
from metagen.learners.rules import Adam, LayerStepRates, LearnedRates, Momentum, Sgd
from metagen.learners.schedules import Linear, Until
from metagen.learners.starts import ClassMean, Random, Theta, Unadapted

SIZE, STEPS, WAYS, CLASSES = 4, 2, 3, 6


class ToyGenerator(Generator):
    """Images from a row of the context, less the mean of those in the memory."""

    encoder = ("reader.*",)

    def __init__(self):
        super().__init__()
        self.context = nn.Parameter(torch.randn(1, 3))
        self.reader = nn.Linear(SIZE**2, 3)
        self.decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, SIZE**2))
        self.register_buffer("memory", torch.zeros(1, 0, 1, SIZE, SIZE))

    def encode(self, support):
        return {"context": self.reader(support.x.flatten(2)).tanh().mean(1)}

    def loss(self, shots):
        x = shots.x.flatten(2)
        given = self.memory.flatten(2).mean(1, keepdim=True) if self.memory.shape[1] else 0.0
        return 0.5 * (x - self.decoder(self.context[shots.y]) - given).square().mean()

    def sequence_nll(self, x):
        return (x.flatten(2) - self.decoder(self.context).flatten()).square().mean((1, 2))


class ToyClassifier(Classifier):
    """One hidden layer and a row of the readout for each class."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 8), nn.Tanh())
        self.readout = nn.Linear(8, WAYS)

    def features(self, x, support=None):
        return self.body(x)


MODELS = {"generate": ToyGenerator, "classify": ToyClassifier}
STARTS = {
    "theta": Theta,
    "random": Random,
    "class_mean": ClassMean,
    "encoder": Encoder,
    "prototypes": Prototypes,
    "memory": Memory,
    "hypernet": lambda: HyperNet(FilmModulation(), SIZE, filters=2, embedding=5),
    "unadapted": Unadapted,
}
RULES = {
    "none": lambda: None,
    "sgd": lambda: Sgd(0.1),
    "momentum": lambda: Momentum(0.1),
    "adam": lambda: Adam(0.05, eps=1e-3),
    "learned_rates": lambda: LearnedRates(0.1),
    "layer_step_rates": lambda: LayerStepRates(0.1, STEPS),
    "meta_curvature": lambda: MetaCurvature(0.1),
    "lstm": lambda: LstmRule(Sgd(0.1), hidden=3),
    "mlp": lambda: MlpRule(Adam(0.05, eps=1e-3), hidden=4, scale=0.05),
}
ADAPTS = {
    "all": lambda: "all",
    "head": lambda: "head",
    "tables": lambda: "tables",
    "low_rank": lambda: LowRankAdapters(1),
}
GRADIENTS = {
    "unrolled": Unrolled,
    "first_order": lambda: Unrolled(True),
    "annealed": lambda: Unrolled(Until(5)),
    "truncated": lambda: Unrolled(truncation=1),
    "recomputed": lambda: Unrolled(checkpoint_steps=1),
    "implicit": lambda: Implicit(2.0, 3),
}
META_LOSSES = {
    "query": Query,
    "multi_step": MultiStep,
    "annealed_multi_step": lambda: MultiStep(Linear(1.0, 0.0, 10)),
    "displacement": Displacement,
    "joint": Joint,
    "sequence": Sequence,
    "untrained": Untrained,
}
AXES = (STARTS, RULES, ADAPTS, GRADIENTS, META_LOSSES)
NO_STEPS = ("joint", "sequence", "untrained")


def compose(*names, made=None):
    """The learner of these parts; raises MetagenError where they make no sense together.

    Args:
        names: of start, rule, what adapts, gradient and meta-loss.
        made: the parts by axis and name, else new ones.
    """
    steps = 0 if names[1] == "none" or names[4] in NO_STEPS else STEPS
    start, rule, adapts, gradient, meta_loss = (
        made[axis][name] if made else AXES[axis][name]() for axis, name in enumerate(names)
    )
    return MetaLearner(
        start, rule, gradient, meta_loss, steps, 0 if names[1] == "none" else STEPS, adapts=adapts
    )


def bound(model, *parts):
    """Learner and objective in float64; raises MetagenError where they do not fit."""
    torch.manual_seed(0)
    learner = compose(*parts)
    objective = Objective(MODELS[model]().double())
    learner.bind(objective, CLASSES)
    return learner.double(), objective


@cache
def sorted_out():
    """All combinations of a model and parts that fit, and the message for each that does not."""
    fit, refused = [], {}
    made = [{name: make() for name, make in axis.items()} for axis in AXES]
    for parts in product(*AXES):
        try:
            compose(*parts, made=made)  # most are refused: that takes no parts of their own
        except MetagenError as error:
            refused[None, *parts] = str(error)
            continue
        for model in MODELS:
            try:
                compose(*parts).bind(Objective(MODELS[model]()), CLASSES)
                fit.append((model, *parts))
            except MetagenError as error:
                refused[model, *parts] = str(error)
    return fit, refused


def covering(combinations):
    """A few of the combinations, among which every pair of choices that fits occurs."""

    def pairs(one):
        return set(pairs_of(enumerate(one), 2))

    left, chosen = set().union(*map(pairs, combinations)), []
    while left:
        best = max(combinations, key=lambda one: len(pairs(one) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen
