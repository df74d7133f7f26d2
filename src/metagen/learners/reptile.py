"""Reptile."""

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params
from metagen.core.objective import Objective
from metagen.learners.gradient_descent import GradientDescent


class Reptile(GradientDescent):
    r"""Move the initialisation towards the adapted parameters (Nichol et al., 2018).

    .. math:: \theta \leftarrow \theta + \epsilon \, \frac{1}{T} \sum_t (\phi_t - \theta)

    The meta-loss is ``0.5 ||theta - stop_gradient(phi)||^2``, whose gradient is theta - phi: plain SGD
    with rate epsilon on it is the published rule, and any other optimizer may take its place. A task
    has no query set here: all of its images are adapted to. Rows of per-class tables are averaged.
    """

    surrogate = True
    lowers = "none"  # it has no query loss

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return 0.5 ||theta - phi||^2 with phi held constant."""
        shots = episode.join()
        start = self.begin(objective, params, shots).params
        phi = self.adapt(objective, params, shots)
        ways = shots.x.shape[0]
        share = {n: 1 / ways if n in objective.model.per_class else 1.0 for n in self.names}
        gaps = [share[n] * (start[n] - phi[n].detach()).square().sum() for n in self.names]
        return 0.5 * torch.stack(gaps).sum()
