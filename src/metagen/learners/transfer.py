"""Ordinary transfer: pretrain on all training classes, then fine-tune."""

from torch import Tensor, nn

from metagen.core.episode import Episode, Params, Shots
from metagen.core.learner import State
from metagen.core.objective import Objective
from metagen.learners.gradient_descent import GradientDescent
from metagen.learners.rules import slug


class Transfer(GradientDescent):
    r"""Joint pretraining of theta and of one table row c_j per training class j, then fine-tuning.

    .. math:: \min_{\theta, c} \sum_j L(\theta, c_j; \text{images of class } j)

    A generator's rows are its contexts; a classifier's are its output weights, so that pretraining
    is classification among *all* training classes at once. A new class starts from the mean row.
    """

    lowers = "all"  # training, which is without adaptation, differentiates once

    def bind(self, objective: Objective, classes: int) -> None:
        """Create the tables, one row for every training class."""
        super().bind(objective, classes)
        params = objective.params()
        start = {n: params[n].detach().mean(0, keepdim=True) for n in objective.model.per_class}
        self.tables = nn.ParameterDict(
            {slug(n): nn.Parameter(row.repeat(classes, *[1] * (row.dim() - 1))) for n, row in start.items()}
        )

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return the pretrained parameters, each new class at the mean of the training classes."""
        mean = {n: self.tables[slug(n)].mean(0, keepdim=True) for n in objective.model.per_class}
        return super().begin(objective, {**params, **mean}, support)

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return the joint loss on all images of the episode, under their training classes."""
        shots = episode.join()
        shots = shots._replace(y=episode.classes[:, None].expand(shots.y.shape))
        tables = {n: self.tables[slug(n)] for n in objective.model.per_class}
        return objective.loss({**params, **tables}, shots)
