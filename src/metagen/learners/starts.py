"""The starts of an adaptation: theta, a random draw, or the mean of what was learned for each class.

Starts that read the support images are in :mod:`metagen.learners.readers` and
:mod:`metagen.learners.hypernet`.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from metagen.core.episode import Params, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.autocast import Lowered
from metagen.learners.rules import slug

BEFORE = -1
"""Separates the noise of a random start from that of the steps, which are numbered from 0."""


class Start(nn.Module):
    """phi_0 as a function of theta and of the support set of one task.

    Attributes:
        few_shot: False where there is no support set at all.
        reads: whether it adapts to the support, without any step.
        learned: whether it says something only after meta-training.
        random: whether it does not depend on theta.
        sees_all: whether the model has the support images before it, beside its parameters.
        trained_by: the meta-loss that it needs, by the name of its choice, or ``None`` for any.
        lowers: what mixed precision may lower where no steps follow.
    """

    few_shot: ClassVar[bool] = True
    reads: ClassVar[bool] = False
    learned: ClassVar[bool] = False
    random: ClassVar[bool] = False
    sees_all: ClassVar[bool] = False
    trained_by: ClassVar[str | None] = None
    lowers: ClassVar[Lowered] = "all"

    @property
    def any_shots(self) -> bool:
        """Whether training steps see another number of the support images each, from none to all."""
        return False

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Check that the start fits the model and create its own meta-parameters.

        Args:
            objective: the model's.
            classes: number of (pseudo-)classes in meta-training.
            moving: names of what the steps will move.

        Raises:
            MetagenError: it does not fit; names what would.
        """

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return the parameters that may differ from theta, among them all per-class tables."""
        raise NotImplementedError

    def prior(self, objective: Objective, params: Params, ways: int) -> Params:
        """Return phi where nothing was seen: theta, with one row per class in the per-class tables."""
        return objective.for_ways(params, ways)

    def writes(self, objective: Objective) -> Sequence[str]:
        """Return the names of what it gives to each task, where this is not theta."""
        return objective.model.per_class

    def seen(self, support: Shots, now: int) -> Shots:
        """Return what meta-training step ``now`` reads of the support: all of it."""
        return support


class Theta(Start):
    """phi_0 = theta, with one row per class in the per-class tables."""

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return the tables."""
        tables = objective.for_ways(params, support.x.shape[0])
        return {n: tables[n] for n in objective.model.per_class}


class Unadapted(Start):
    """phi = theta as it is, for plain training on labelled images: there is no support set."""

    few_shot = False
    lowers = "query"

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Check that the model has one output for each class, not a row to be adapted."""
        if objective.model.kind != "classify":
            raise MetagenError(
                f"learner=supervised needs a classifier, such as model=basenet; to train "
                f"{type(objective.model).__name__} on all classes jointly use learner=transfer"
            )

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return nothing that differs from theta."""
        return {}

    def prior(self, objective: Objective, params: Params, ways: int) -> Params:
        """Return theta: its labels are of all classes."""
        return params


class Random(Start):
    """phi_0 drawn anew for every episode, from normal distributions like the model's initialisation.

    Each tensor that moves has the mean and the deviation that it had at initialisation, so that a rule must
    work from anywhere; the draw depends on the support's key alone. What does not move is theta.
    """

    random = True
    moments: Tensor

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Note mean and deviation of every tensor of the model's initialisation, (n, 2)."""
        params, self.moving = objective.params(), tuple(moving)
        rows = [(params[n].detach().mean(), params[n].detach().std(correction=0)) for n in moving]
        self.register_buffer("moments", torch.stack([torch.stack(row) for row in rows]))

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return the draw, and the tables."""
        tables = objective.for_ways(params, support.x.shape[0])
        key, fresh = rng.fold_in(support.key, BEFORE), {}
        for i, name in enumerate(self.moving):
            mean, std = self.moments[i]
            p = tables[name]
            fresh[name] = mean + std * rng.normal(rng.fold_in(key, i), tuple(p.shape), p.dtype)
        return {n: tables[n] for n in objective.model.per_class} | fresh


class ClassMean(Start):
    """theta and the mean over one row c_j per training class j, which joint pretraining learns.

    A generator's rows are its contexts; a classifier's are its output weights. A new class starts from the
    mean row.
    """

    learned, trained_by = True, "joint"

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Create the tables, one row for every training class."""
        params = objective.params()
        rows = {n: params[n].detach().mean(0, keepdim=True) for n in objective.model.per_class}
        self.tables = nn.ParameterDict(
            {slug(n): nn.Parameter(row.repeat(classes, *[1] * (row.dim() - 1))) for n, row in rows.items()}
        )

    def rows(self, objective: Objective) -> Params:
        """Return the tables of all training classes by their names in the model."""
        return {n: self.tables[slug(n)] for n in objective.model.per_class}

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return the mean row for each class."""
        phi = self.prior(objective, params, support.x.shape[0])
        return {n: phi[n] for n in objective.model.per_class}

    def prior(self, objective: Objective, params: Params, ways: int) -> Params:
        """Return theta with the mean row for each class."""
        mean = {n: table.mean(0, keepdim=True) for n, table in self.rows(objective).items()}
        return objective.for_ways({**params, **mean}, ways)
