"""A meta-network in the first sense of the word: a network that optimises another one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params, Shots
from metagen.core.learner import State
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.learners.gradient_descent import GradientDescent
from metagen.learners.rules import Rule

START = -1
"""Separates the noise of a random start from that of the steps, which are numbered from 0."""


class LearnedOptimizer(GradientDescent):
    r"""phi_{i+1} = phi_i + f_w(grad L(phi_i; support)), with w trained through the unrolled steps.

    .. math:: \min_w \sum_t \sum_{i=1}^S w_i L_t(\phi_t^{(i)}; \text{query}), \quad w_i \propto i^p

    Andrychowicz et al., *Learning to learn by gradient descent by gradient descent*, NeurIPS 2016;
    the loss at every step is that of the query images, by which the result is judged. The graph is
    cut every ``truncation`` steps and the gradients of all segments are added (truncated
    backpropagation through time; Werbos, 1990). It runs through the updates, not through the
    gradients that f_w reads, unless ``first_order=False``.

    With ``random_start`` every episode sets out from its own phi_0, whose tensors are normal with the mean
    and deviation of the model's initialisation: theta is then not trained, and f_w must work from anywhere.

    Args:
        rule: f_w, see :mod:`metagen.learners.lstm_rule` and :mod:`metagen.learners.mlp_rule`.
        steps: S, inner steps in meta-training.
        late: p >= 0, which weighs the losses of later steps; 0 is the paper's plain mean.
        truncation: steps between two cuts of the graph; ``None`` never cuts.
        random_start: draw phi_0 anew for every episode; else phi_0 = theta, which is then trained, too.
        on_query: take the meta-loss on the query images; else on the images of the next step (the paper).
        test_steps, first_order, adapts, batch, checkpoint_steps: see :class:`GradientDescent`.
    """

    start: Tensor

    lowers = "none"  # every step has its loss, from which the next one goes on

    def __init__(
        self,
        rule: Rule,
        steps: int = 20,
        test_steps: int | None = None,
        truncation: int | None = None,
        random_start: bool = True,
        on_query: bool = True,
        late: float = 0.0,
        first_order: bool = True,
        adapts: str | Sequence[str] = "all",
        batch: int | None = None,
        checkpoint_steps: int | None = None,
    ) -> None:
        super().__init__(rule, steps, test_steps, first_order, adapts, batch, checkpoint_steps)
        if truncation is not None and truncation < 1:
            raise MetagenError(
                f"learner.truncation={truncation}: expected null, or a number of steps, 1 or more"
            )
        if late < 0:
            raise MetagenError(f"learner.late={late}: expected 0, or a positive power of the step's number")
        self.truncation, self.random_start, self.on_query = truncation, random_start, on_query
        self.late = late

    def bind(self, objective: Objective, classes: int) -> None:
        """Note mean and deviation of every tensor of the model's initialisation, (n, 2)."""
        super().bind(objective, classes)
        params = objective.params()
        rows = [(params[n].detach().mean(), params[n].detach().std(correction=0)) for n in self.names]
        self.register_buffer("start", torch.stack([torch.stack(row) for row in rows]))

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return phi_0: theta, or a fresh initialisation of what moves, drawn from the support's key."""
        state = super().begin(objective, params, support)
        if not self.random_start:
            return state
        key = rng.fold_in(support.key, START)
        fresh = {}
        for i, name in enumerate(self.names):
            mean, std = self.start[i]
            p = state.params[name]
            fresh[name] = mean + std * rng.normal(rng.fold_in(key, i), tuple(p.shape), p.dtype)
        return State({**state.params, **fresh}, self.rule.init(fresh))

    def meta_loss(self, objective: Objective, params: Params, episode: Episode) -> Tensor:
        """Return the weighted mean of the losses after every step, a scalar."""

        def loss(params: Params, phi: Params, shots: Shots) -> Tensor:
            return objective.loss({**params, **phi}, shots)

        support = episode.support
        state = self.begin(objective, params, support)
        losses = []
        for index in range(self.steps):
            if self.truncation is not None and index and index % self.truncation == 0:
                state = _detached(state)
            state = self.advance(objective, params, state, support, index, index + 1)
            shots = episode.query if self.on_query else self.seen_at(support, index + 1)
            losses.append(self.kept(loss, params, state.params, shots))
        weights = torch.arange(1, self.steps + 1, device=support.x.device, dtype=support.x.dtype) ** self.late
        return torch.stack(losses) @ (weights / weights.sum())

    def seen_at(self, support: Shots, index: int) -> Shots:
        """Return the images that step ``index`` sees."""
        shots = support.at(index)
        return shots if self.batch is None else shots.minibatch(self.batch)


class HandMadeOptimizer(LearnedOptimizer):
    """The control of a learned optimizer: a rule without parameters, from the same random starts.

    Nothing is meta-trained. In an episode, phi_0 and every minibatch are those of the learned one.
    """

    meta_trained = False


def _detached(state: State) -> State:
    params = {n: p.detach() for n, p in state.params.items()}
    return State(params, {s: {n: p.detach() for n, p in slot.items()} for s, slot in state.slots.items()})
