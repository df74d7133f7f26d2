"""Adaptation by gradient descent on the support loss: MAML and its relatives."""

from collections.abc import Sequence
from fnmatch import fnmatch

import torch

from metagen.core.episode import Params, Shots
from metagen.core.learner import Learner, State
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.vectorize import gradient
from metagen.learners.rules import Rule


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
        adapts: which parameters move: ``"all"``, ``"head"`` (the model says which), ``"tables"`` (those
            with one row per class), or glob patterns.
        batch: support images of a class that a step sees, drawn anew for each; ``None`` means all.
        checkpoint_steps: see :class:`~metagen.core.learner.Learner`.
        test_rate: the rule's step size alpha in validation and test, where it is not learned; ``None`` is
            that of meta-training. A start that was trained for few long steps may lead further in short ones.
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
        test_rate: float | None = None,
    ) -> None:
        super().__init__(steps, test_steps, checkpoint_steps)
        if batch is not None and batch < 1:
            raise MetagenError(f"learner.batch={batch}: expected null, or the images of a class in a step")
        self.batch = batch
        if isinstance(adapts, str) and adapts not in ("all", "head", "tables"):
            raise MetagenError(
                f"learner.adapts={adapts}: expected 'all', 'head', 'tables' or a list of patterns"
            )
        self.rule = rule
        self._test_rule = None if test_rate is None else rule.at_rate(test_rate)
        self.first_order = first_order
        self.adapts = adapts if isinstance(adapts, str) else tuple(adapts)
        self.names: tuple[str, ...] = ()

    def bind(self, objective: Objective, classes: int) -> None:
        """Find the parameters that move and create their learned rates, if any."""
        self.refuse_memory(objective)
        model, params = objective.model, objective.params()
        named = {"all": ("*",), "head": model.head, "tables": model.per_class}
        wanted = named[self.adapts] if isinstance(self.adapts, str) else self.adapts
        encoder = self.matching(params, model.encoder)
        names = [n for n in self.matching(params, wanted) if n not in encoder]
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
        # Cut the graph before the gradient is taken, not after: then no second-order graph is built.
        at = {n: p.detach() for n, p in current.items()} if self.first_order else current
        shots = support.at(index)
        if self.batch is not None:
            shots = shots.minibatch(self.batch)
        grads = self.gradients(objective, params, at, support, shots)
        rule = self.rule if self.training or self._test_rule is None else self._test_rule
        moved, slots = rule.update({n: current[n] for n in self.names}, grads, state.slots, index)
        return State({**state.params, **moved}, slots)

    def gradients(
        self, objective: Objective, params: Params, phi: Params, support: Shots, shots: Shots
    ) -> Params:
        """Return grad L(phi; shots) with respect to what moves; ``shots`` are those of this step."""

        def loss(inner: Params, phi: Params, shots: Shots) -> torch.Tensor:
            return objective.loss({**phi, **inner}, shots)

        return gradient(loss, {n: phi[n] for n in self.names}, phi, shots)

    @staticmethod
    def matching(params: Params, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the names in ``params`` that fit one of the glob patterns."""
        return tuple(n for n in params if any(fnmatch(n, pattern) for pattern in patterns))
