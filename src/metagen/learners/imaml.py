"""MAML by implicit gradients."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.vectorize import gradient
from metagen.learners.gradient_descent import GradientDescent
from metagen.learners.rules import Rule


class IMAML(GradientDescent):
    r"""The meta-gradient at the end of the adaptation, whatever path led there.

    .. math:: \phi^* = \arg\min_\phi L(\phi; \text{support}) + \tfrac{\lambda}{2} \|\phi - \theta\|^2, \quad
              \nabla_\theta = (I + H / \lambda)^{-1} \nabla L(\phi^*; \text{query})

    with H the Hessian of the support loss at phi; the system is solved by conjugate gradients, so that
    memory does not grow with the inner steps. Rajeswaran, Finn, Kakade and Levine, *Meta-Learning with
    Implicit Gradients*, NeurIPS 2019. The value of the meta-loss is the query loss; its gradient is the
    implicit one, exact as the inner steps and ``cg_steps`` reach their limits. A stochastic loss enters
    H with the noise of the last inner step. Parameters that do not move, where there are any, get the
    gradient of the query loss and that through phi.

    Args:
        rule: the update rule of the inner loop.
        steps: inner steps in meta-training, at least 1.
        test_steps: inner steps in validation and test; ``None`` means ``steps``.
        strength: lambda > 0, what ties phi to theta.
        cg_steps: iterations of conjugate gradients, at least 1.
        adapts: which parameters move, see :class:`~metagen.learners.gradient_descent.GradientDescent`.
        batch: support images of a class that a step sees; ``None`` means all.
    """

    surrogate = True
    lowers = "none"  # it solves with gradients of the query loss that no loss scale reaches

    def __init__(
        self,
        rule: Rule,
        steps: int = 10,
        test_steps: int | None = None,
        strength: float = 2.0,
        cg_steps: int = 5,
        adapts: str | Sequence[str] = "all",
        batch: int | None = None,
    ) -> None:
        super().__init__(rule, steps, test_steps, True, adapts, batch)
        if strength <= 0:
            raise MetagenError(f"learner.strength={strength}: expected lambda > 0, such as 2.0")
        if steps < 1 or cg_steps < 1:
            raise MetagenError(f"learner.steps={steps}, cg_steps={cg_steps}: expected 1 or more of each")
        self.strength, self.cg_steps = strength, cg_steps

    def gradients(
        self, objective: Objective, params: Params, phi: Params, support: Shots, shots: Shots
    ) -> Params:
        """Return grad L(phi; shots) + lambda (phi - theta)."""
        start = self.begin(objective, params, support).params
        plain = super().gradients(objective, params, phi, support, shots)
        return {n: g + self.strength * (phi[n] - start[n]).detach() for n, g in plain.items()}

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return the query loss at phi, whose gradient is the implicit one."""
        start = self.begin(objective, params, episode.support).params
        reached = self.adapt(objective, params, episode.support)
        phi = {n: reached[n].detach() for n in start}
        last = episode.support.at(self.steps - 1)
        shots = last if self.batch is None else last.minibatch(self.batch)
        moving = {n: phi[n] for n in self.names}
        fixed = {n: p.detach() for n, p in {**params, **phi}.items()}

        def query_loss(inner: Params, fixed: Params, episode: Episode) -> Tensor:
            return objective.query_loss({**fixed, **inner}, episode)

        def support_loss(inner: Params, fixed: Params, shots: Shots) -> Tensor:
            return objective.loss({**fixed, **inner}, shots)

        def product(inner: Params, fixed: Params, shots: Shots, v: Params) -> Tensor:
            return _dot(torch.func.grad(support_loss)(inner, fixed, shots), v)

        def matrix(v: Params) -> Params:
            hv = gradient(product, moving, fixed, shots, v)
            return {n: v[n] + hv[n] / self.strength for n in v}

        v = conjugate_gradients(matrix, gradient(query_loss, moving, fixed, episode), self.cg_steps)
        v = {n: x.detach() for n, x in v.items()}
        implicit = _dot(v, {n: start[n] - start[n].detach() for n in v})
        if any(n not in start and n not in self.unmoved for n in params):
            through = -product(moving, {**params, **phi}, shots, v) / self.strength
            implicit = implicit + through - through.detach()
        return objective.query_loss({**params, **phi}, episode) + implicit

    def bind(self, objective: Objective, classes: int) -> None:
        """Find the parameters that move, and those that no loss reads."""
        self.refuse_memory(objective)
        if objective.model.surrogate:
            raise MetagenError(
                f"learner=imaml needs a loss that adaptation minimises, such as that of model=vae; "
                f"{type(objective.model).__name__} has none: use learner=fomaml"
            )
        super().bind(objective, classes)
        self.unmoved = self.matching(objective.params(), objective.model.encoder)


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
