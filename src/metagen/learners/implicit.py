"""The meta-gradient by the implicit function theorem, whatever path led to the adapted parameters."""

from collections.abc import Callable

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params, Shots
from metagen.core.learner import State
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.vectorize import gradient
from metagen.learners.parts import Composition, Gradient
from metagen.ranges import PositiveFloat, Turns, checked

START = "implicit.start"
"""Name of the slot for z_0."""


class Implicit(Gradient):
    r"""The meta-gradient at the end of the adaptation (iMAML).

    .. math:: z^* = \arg\min_z L(z; \text{support}) + \tfrac{\lambda}{2} \|z - z_0\|^2, \quad
              \nabla_{z_0} = (I + H / \lambda)^{-1} \nabla L(z^*; \text{query})

    with z what moves, z_0 its start and H the Hessian of the support loss at z*; the system is solved by
    conjugate gradients, so that memory does not grow with the inner steps. Rajeswaran, Finn, Kakade and
    Levine, *Meta-Learning with Implicit Gradients*, NeurIPS 2019. The value of the meta-loss is the query
    loss; its gradient is the implicit one, exact as the inner steps and ``cg_steps`` reach their limits. A
    stochastic loss enters H with the noise of the last inner step. Whatever z_0 was made of, such as an
    encoder, is reached through it; parameters that do not move get the gradient of the query loss and that
    through z*.

    Args:
        strength: lambda > 0, what ties the adapted parameters to the start.
        cg_steps: iterations of conjugate gradients, at least 1.
    """

    surrogate = True
    lowers = "none"  # it solves with gradients of the query loss that no loss scale reaches

    @checked
    def __init__(self, strength: PositiveFloat = 2.0, cg_steps: Turns = 5) -> None:
        super().__init__()
        self.strength, self.cg_steps = strength, cg_steps

    def check(self, learner: Composition) -> None:
        """Check that the loss comes at the end, of steps that nothing but their end is learned from."""
        if not learner.criterion.at_the_end:
            raise MetagenError(
                f"learner.gradient=Implicit knows the end of the steps alone, which "
                f"{type(learner.criterion).__name__} does not go by: use learner/meta_loss=query, or "
                f"learner/gradient=unrolled"
            )
        if learner.rule is not None and learner.rule.learned:
            raise MetagenError(
                f"learner.gradient=Implicit does not depend on the path, from which "
                f"{type(learner.rule).__name__} would learn: use learner/rule=sgd, or "
                f"learner/gradient=unrolled"
            )
        if learner.takes_none:
            raise MetagenError(
                "learner.steps=0: an implicit gradient is that of adapted parameters; use learner.steps=1 "
                "or more"
            )

    def bind(self, objective: Objective, learner: Composition) -> None:
        """Check that adaptation minimises something."""
        if objective.model.surrogate:
            raise MetagenError(
                f"learner=imaml needs a loss that adaptation minimises, such as that of model=vae; "
                f"{type(objective.model).__name__} has none: use learner=fomaml"
            )

    def slots(self, z: Params) -> dict[str, Params]:
        """Return z_0, to which every step is tied."""
        return {START: z}

    def of_support(
        self,
        learner: Composition,
        objective: Objective,
        z: Params,
        phi: Params,
        shots: Shots,
        state: State,
        now: int | None,
    ) -> Params:
        """Return grad L(z; shots) + lambda (z - z_0)."""
        plain = super().of_support(learner, objective, z, phi, shots, state, now)
        start = state.slots[START]
        return {n: g + self.strength * (z[n] - start[n]).detach() for n, g in plain.items()}

    def query_loss(
        self,
        learner: Composition,
        objective: Objective,
        params: Params,
        support: Shots,
        episode: Episode,
        now: int,
    ) -> Tensor:
        """Return the query loss at z*, whose gradient is the implicit one."""
        steps, write = learner.steps_at(now), learner.adapts.write
        start, end = learner.path(objective, params, support, [0, steps], now)
        z0, phi0 = learner.adapts.read(start)
        moving = {n: x.detach() for n, x in learner.adapts.read(end)[0].items()}
        shots = learner.shots_at(support, steps - 1)
        live = {**params, **start.params, **phi0}
        fixed = {n: p.detach() for n, p in live.items()}

        def query_loss(z: Params, phi: Params, episode: Episode) -> Tensor:
            return objective.query_loss({**phi, **write(z, phi)}, episode)

        def support_loss(z: Params, phi: Params, shots: Shots) -> Tensor:
            return objective.loss({**phi, **write(z, phi)}, shots)

        def product(z: Params, phi: Params, shots: Shots, v: Params) -> Tensor:
            return _dot(gradient(support_loss, z, phi, shots), v)

        def matrix(v: Params) -> Params:
            hv = gradient(product, moving, fixed, shots, v)
            return {n: v[n] + hv[n] / self.strength for n in v}

        v = conjugate_gradients(matrix, gradient(query_loss, moving, fixed, episode), self.cg_steps)
        v = {n: x.detach() for n, x in v.items()}
        implicit = _dot(v, {n: z0[n] - z0[n].detach() for n in v})
        if learner.adapts.fixed:
            through = -product(moving, live, shots, v) / self.strength
            implicit = implicit + through - through.detach()
        return query_loss(moving, live, episode) + implicit


def conjugate_gradients(matrix: Callable[[Params], Params], b: Params, steps: int) -> Params:
    """Return x with matrix(x) = b for a symmetric positive definite matrix, after ``steps`` iterations.

    Hestenes and Stiefel, 1952. No iteration looks at the residual, so that tasks stay in step.
    """
    x = {n: torch.zeros_like(v) for n, v in b.items()}
    r = p = b
    rr = _dot(r, r)
    for _ in range(steps):
        ap = matrix(p)
        alpha = _ratio(rr, _dot(p, ap))
        x = {n: v + alpha * p[n] for n, v in x.items()}
        r = {n: v - alpha * ap[n] for n, v in r.items()}
        old, rr = rr, _dot(r, r)
        beta = _ratio(rr, old)
        p = {n: v + beta * p[n] for n, v in r.items()}
    return x


def _dot(a: Params, b: Params) -> Tensor:
    return torch.stack([(a[n] * b[n]).sum() for n in a]).sum()


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, and 0 where the system is solved and both vanish."""
    tiny = torch.finfo(b.dtype).tiny
    return torch.where(b.abs() > tiny, a / torch.where(b.abs() > tiny, b, 1.0), 0.0)
