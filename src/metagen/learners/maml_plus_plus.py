"""MAML++: what makes MAML train stably."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.gradient_descent import GradientDescent
from metagen.learners.rules import Rule


class MAMLPlusPlus(GradientDescent):
    r"""MAML with a loss after every step and first-order gradients to begin with.

    .. math:: \min_\theta \sum_t \sum_{i=1}^S w_i L_t(\phi_t^{(i)}; \text{query})

    Antoniou, Edwards and Storkey, *How to Train Your MAML*, ICLR 2019. The weights w go from 1 / S each
    to all on the last step, linearly over ``msl_steps`` meta-training steps. The published rates per
    layer and step are the rule :class:`~metagen.learners.rules.LayerStepRates`.

    Args:
        rule: the update rule of the inner loop.
        steps: S, inner steps in meta-training, at least 1.
        test_steps: inner steps in validation and test; ``None`` means ``steps``.
        msl_steps: meta-training steps until only the last loss counts; 0 is from the start.
        second_order_after: meta-training steps with first-order gradients.
        adapts: which parameters move, see :class:`~metagen.learners.gradient_descent.GradientDescent`.
        batch: support images of a class that a step sees; ``None`` means all.
        checkpoint_steps: see :class:`~metagen.core.learner.Learner`.
    """

    def __init__(
        self,
        rule: Rule,
        steps: int = 5,
        test_steps: int | None = None,
        msl_steps: int = 1000,
        second_order_after: int = 500,
        adapts: str | Sequence[str] = "all",
        batch: int | None = None,
        checkpoint_steps: int | None = None,
    ) -> None:
        super().__init__(rule, steps, test_steps, second_order_after > 0, adapts, batch, checkpoint_steps)
        if steps < 1:
            raise MetagenError(f"learner.steps={steps}: MAML++ needs 1 or more inner steps to weigh")
        for name, value in (("msl_steps", msl_steps), ("second_order_after", second_order_after)):
            if value < 0:
                raise MetagenError(f"learner.{name}={value}: expected a number of meta-training steps")
        self.msl_steps, self.second_order_after = msl_steps, second_order_after
        self.now = 0

    def set_step(self, step: int) -> None:
        """Set the order of the gradients and the weights of the losses by the meta-training step."""
        self.now = step
        self.first_order = step < self.second_order_after

    def weights(self) -> list[float]:
        """Return w_1 ... w_S, which sum to 1, at this meta-training step."""
        left = max(0.0, 1 - self.now / self.msl_steps) if self.msl_steps else 0.0
        early = left / self.steps
        return [early] * (self.steps - 1) + [1 - (self.steps - 1) * early]

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return sum_i w_i L(phi_i; query), a scalar."""

        def query_loss(params: Params, phi: Params, episode: Episode) -> Tensor:
            return objective.query_loss({**params, **phi}, episode)

        state, losses = self.begin(objective, params, episode.support), []
        for index, weight in enumerate(self.weights()):
            state = self.advance(objective, params, state, episode.support, index, index + 1)
            if weight:
                losses.append(weight * self.kept(query_loss, params, state.params, episode))
        return torch.stack(losses).sum()
