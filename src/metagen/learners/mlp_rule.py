"""A learned optimizer that reads momenta."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MaxLen
from torch import Tensor, nn

from metagen.core.episode import Params
from metagen.errors import MetagenError
from metagen.functional.constants import constant
from metagen.learners.learned_rules import LearnedRule, join, split
from metagen.learners.rules import Rule
from metagen.ranges import Decay, PositiveFloat, Width, checked

TIMES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Time scales, in steps, at which the network sees the step number."""
SPEED = 10.0
"""Multiplies s_n and c_n, so that steps of the meta-optimizer that suit the network suit these, too."""
RANGE = 4.0
"""The network scales a step by e^-4 to e^4."""
LOGS = 10.0
"""Logarithms are divided by it to be of the size of the other inputs."""
EPS = 1e-16
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of a X + b (X X^T) X + c (X X^T)^2 X, which brings singular values from (0, 1] near 1."""
ITERATIONS = 5


class MlpRule(LearnedRule):
    r"""A small network reads what is known of one coordinate and writes a direction and a magnitude.

    .. math:: \phi_{i+1} = \phi_i + e^{a'_i} (u_i + s \, (d_i + 10 \, c_n \cdot \tau(i) \, o_i))
    .. math:: a'_i = 4 \tanh((a_i + 10 \, s_n \cdot \tau(i)) / 4), \; (d_i, a_i) = f_w(x_i)

    In the spirit of Metz et al., *Understanding and correcting pathologies in the training of learned
    optimizers*, ICML 2019, and *Tasks, stability, architecture, and compute*, 2020. Inputs x_i of a
    coordinate: g over its root mean square in the tensor, g and every momentum over the root of the second
    moment v, log v over its mean in the tensor, and phi over its root mean square; inputs of
    its tensor n: log rms of g and of phi, log size, and tau(i) = (1, i / (i + t) for several t). With
    ``orthogonal``, o is the slowest momentum of the tensor, as a matrix with one row for every output,
    downhill and with its singular values near 1 (Jordan et al., *Muon*, 2024), scaled to a root mean
    square near 1; else the term with c_n is left out. The last layer, s_n and c_n start at 0, so that
    the untrained rule is ``base``.

    Args:
        base: the hand-made rule that is corrected.
        hidden: units of each of the two layers.
        scale: s, the size of the network's direction in units of the parameters.
        betas: decay of each momentum.
        beta_square: decay of the second moment.
        per_tensor: learn a schedule s_n of log rates for every tensor; it fits this model alone.
        orthogonal: learn a schedule c_n of orthogonal steps for every tensor; it, too, fits this model alone.
    """

    remembers = ("momenta", "square")

    @checked
    def __init__(
        self,
        base: Rule,
        hidden: Width = 8,
        scale: PositiveFloat = 0.001,
        betas: Annotated[Sequence[Decay], MaxLen(100)] = (0.5, 0.9),
        beta_square: Decay = 0.95,
        per_tensor: bool = True,
        orthogonal: bool = False,
    ) -> None:
        super().__init__(base)
        if orthogonal and not betas:
            raise MetagenError("learner.rule.betas=[]: expected the decay of a momentum for orthogonal=true")
        self.scale, self.betas, self.beta_square = scale, tuple(betas), beta_square
        self.per_tensor, self.orthogonal = per_tensor, orthogonal
        self.coordinate = nn.Parameter(_uniform(hidden, 4 + len(self.betas)))
        self.tensor = nn.Parameter(_uniform(hidden, 4 + len(TIMES)))
        self.mix = nn.Parameter(_uniform(hidden, hidden))
        self.mix_bias = nn.Parameter(torch.zeros(hidden, 1))
        self.readout = nn.Parameter(torch.zeros(2, hidden))

    def bind(self, params: Params) -> None:
        """Create the schedules, one row for every tensor."""
        super().bind(params)
        zeros = next(iter(params.values())).new_zeros(len(params), 1 + len(TIMES))
        if self.per_tensor:
            self.schedule = nn.Parameter(zeros.clone())
        if self.orthogonal:
            self.share = nn.Parameter(zeros.clone())

    def check_any_net(self) -> None:
        """Check that nothing was learned for single tensors.

        Raises:
            MetagenError: there are schedules for the tensors of one model.
        """
        super().check_any_net()
        if self.per_tensor or self.orthogonal:
            raise MetagenError(
                "this MlpRule learned a schedule for each tensor of its own model and fits no other network: "
                "use a run of learner.rule.per_tensor=false learner.rule.orthogonal=false"
            )

    def memory(self, coordinates: Tensor) -> Params:
        """Return zero momenta (B, M) and a zero second moment (1, M)."""
        size = len(coordinates)
        return {
            "momenta": coordinates.new_zeros(len(self.betas), size),
            "square": coordinates.new_zeros(1, size),
        }

    def correct(
        self, step: Tensor, params: Params, grads: Params, memory: Params, index: int
    ) -> tuple[Tensor, Params]:
        """Return e^a' (u + s (d + c_n tau o)) and the new memory."""
        grads = {n: grads[n] for n in params}
        g = join(grads)
        beta = constant(tuple(self.betas), g)[:, None]
        momenta = beta * memory["momenta"] + (1 - beta) * g
        square = self.beta_square * memory["square"] + (1 - self.beta_square) * g * g
        mean, v = momenta / (1 - beta ** (index + 1)), square / (1 - self.beta_square ** (index + 1))
        time = self.clock(index, g)
        direction, magnitude = self.network(params, grads, torch.cat([g[None], mean]), v, time)
        if self.per_tensor:
            magnitude = magnitude + self.spread(SPEED * time @ self.schedule.T, params)[0]
        if self.orthogonal:
            slowest = split(mean[self.betas.index(max(self.betas))], params)
            downhill = -join({n: orthogonal(m) for n, m in slowest.items()})
            direction = direction + self.spread(SPEED * time @ self.share.T, params)[0] * downhill
        grown = (RANGE * torch.tanh(magnitude / RANGE)).exp()
        return grown * (step + self.scale * direction), {"momenta": momenta, "square": square}

    def clock(self, index: int, like: Tensor) -> Tensor:
        """Return (1, tau(index)), (1, 1 + C)."""
        return constant((1.0, *(index / (index + c) for c in TIMES)), like)[None]

    def network(self, params: Params, grads: Params, means: Tensor, v: Tensor, time: Tensor) -> Tensor:
        """Return d and a, (2, M), from g and the momenta (1 + B, M), v (1, M) and the time (1, 1 + C)."""
        rms_g, rms_phi = self.rms(grads), self.rms(params)
        spread_v = split(v[0], params)
        rms_v = self.rms({n: (square + EPS).sqrt() for n, square in spread_v.items()})
        phi = join(params)[None] / self.spread(rms_phi, params)
        sizes = torch.cat([means[:1] / self.spread(rms_g, params), means * torch.rsqrt(v + EPS), phi])
        levels = (v + EPS).log() / 2 - self.spread(rms_v.log(), params)
        x = torch.cat([torch.asinh(sizes), levels / LOGS])
        numel = constant(tuple(float(params[n].numel()) for n in params), rms_g)[None]
        of_tensor = torch.cat(
            [torch.cat([rms_g, rms_phi, numel]).log() / LOGS, time.T.expand(-1, len(params))]
        )
        h = torch.relu(self.coordinate @ x + self.spread(self.tensor @ of_tensor, params))
        return self.readout @ torch.relu(self.mix @ h + self.mix_bias)

    def rms(self, params: Params) -> Tensor:
        """Return the root mean square of every tensor, (1, n)."""
        return torch.stack([(p.square().mean() + EPS).sqrt() for p in params.values()])[None]

    def spread(self, values: Tensor, like: Params) -> Tensor:
        """Repeat one column per tensor, (R, n), for all of its coordinates, (R, M)."""
        columns = zip(values.split(1, 1), (p.numel() for p in like.values()), strict=True)
        return torch.cat([column.expand(-1, size) for column, size in columns], 1)


def orthogonal(m: Tensor) -> Tensor:
    """Return U V^T sqrt(max(r, c)) for m = U S V^T, (r, c), approximately; further axes belong to c.

    A vector is one row, whose direction remains. The root mean square is near 1 at full rank.
    """
    x = m.flatten(1) if m.dim() > 1 else m.reshape(1, -1)
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    longer = x.shape[1]
    x = x * torch.rsqrt(x.square().sum() + EPS)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return math.sqrt(longer) * (x.T if flip else x).reshape(m.shape)


def _uniform(outputs: int, inputs: int) -> Tensor:
    bound = 1 / math.sqrt(inputs)
    return torch.empty(outputs, inputs).uniform_(-bound, bound)
