"""Adaptation by gradient descent on the support loss: MAML and its relatives."""

from collections.abc import Sequence
from fnmatch import fnmatch

import torch

from metagen.episode import Params, Shots
from metagen.errors import MetagenError
from metagen.learners.base import Learner, State
from metagen.learners.rules import Rule
from metagen.objective import Objective
from metagen.vectorize import gradient


class GradientDescent(Learner):
    r"""phi_{i+1} = phi_i - alpha grad L(phi_i; support), differentiated through for the meta-loss.

    .. math:: \min_\theta \sum_t L_t(\phi_t^{(S)}; \text{query}), \quad \phi_t^{(0)} = \theta

    - MAML (Finn et al., ICML 2017): all parameters, ``first_order=False``.
    - FOMAML (ibid.): ``first_order=True``; the meta-gradient is that of the query loss at phi.
    - ANIL (Raghu et al., ICLR 2020): ``adapts="head"``.
    - CAVIA (Zintgraf et al., ICML 2019): ``adapts=["context"]``.
    - Meta-SGD (Li et al., 2017): ``rule`` with learned rates.

    Args:
        rule: the update rule of the inner loop.
        steps: inner steps in meta-training.
        test_steps: inner steps in validation and test; ``None`` means ``steps``.
        first_order: treat inner gradients as constants.
        adapts: which parameters move: ``"all"``, ``"head"`` (the model says which), or glob patterns.
        batch: support images of a class that a step sees, drawn anew for each; ``None`` means all.
        checkpoint_steps: see :class:`~metagen.learners.base.Learner`.
    """

    def __init__(
        self,
        rule: Rule,
        steps: int = 5,
        test_steps: int | None = None,
        first_order: bool = False,
        adapts: str | Sequence[str] = "all",
        batch: int | None = None,
        checkpoint_steps: int | None = None,
    ) -> None:
        super().__init__(steps, test_steps, checkpoint_steps)
        if batch is not None and batch < 1:
            raise MetagenError(f"learner.batch={batch}: expected null, or the images of a class in a step")
        self.batch = batch
        if isinstance(adapts, str) and adapts not in ("all", "head"):
            raise MetagenError(f"learner.adapts={adapts}: expected 'all', 'head' or a list of patterns")
        self.rule = rule
        self.first_order = first_order
        self.adapts = adapts if isinstance(adapts, str) else tuple(adapts)
        self.names: tuple[str, ...] = ()

    def bind(self, objective: Objective, classes: int) -> None:
        """Find the parameters that move and create their learned rates, if any."""
        model, params = objective.model, objective.params()
        named = {"all": ("*",), "head": model.head}
        wanted = named[self.adapts] if isinstance(self.adapts, str) else self.adapts
        names = [n for n in params if _matches(n, wanted) and not _matches(n, model.encoder)]
        if not names:
            raise MetagenError(
                f"the learner adapts {list(wanted)} but {type(model).__name__} has no such parameters: "
                f"use learner=maml, or a model that has them, such as model=vae"
            )
        self.names = tuple(names)
        # A per-class table has one row of rates, whatever the number of ways.
        self.rule.bind({n: params[n][:1] if n in model.per_class else params[n] for n in names})

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return phi_0 = theta, with one row per class in the per-class tables."""
        tables = objective.for_ways(params, support.x.shape[0])
        phi = {
            n: tables[n] for n in {**dict.fromkeys(self.names), **dict.fromkeys(objective.model.per_class)}
        }
        return State(phi, self.rule.init({n: phi[n] for n in self.names}))

    def step(self, objective: Objective, params: Params, state: State, support: Shots, index: int) -> State:
        """Return the state after one step of the rule on the support loss."""
        current = {**params, **state.params}
        moving = {n: current[n] for n in self.names}
        # Cut the graph before the gradient is taken, not after: then no second-order graph is built.
        at = {n: p.detach() for n, p in current.items()} if self.first_order else current
        shots = support.at(index)
        if self.batch is not None:
            shots = shots.minibatch(self.batch)

        def support_loss(inner: Params, at: Params, shots: Shots) -> torch.Tensor:
            return objective.loss({**at, **inner}, shots)

        grads = gradient(support_loss, {n: at[n] for n in self.names}, at, shots)
        moved, slots = self.rule.update(moving, grads, state.slots, index)
        return State({**state.params, **moved}, slots)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
