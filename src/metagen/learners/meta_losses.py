"""Meta-losses: by which loss of its adaptation a learner is meta-trained."""

from typing import Protocol, cast

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.parts import Composition, MetaLoss
from metagen.learners.schedules import Schedule, at
from metagen.ranges import NonNegativeFloat, Probability, checked


class Query(MetaLoss):
    """L(phi_S; query): the loss of the query images at the end of the adaptation (Finn et al., 2017)."""

    at_the_end = True

    def check(self, learner: Composition) -> None:
        """Check that the start is trained by it."""
        _trained_by_any(learner)

    def forward(
        self, learner: Composition, objective: Objective, params: Params, episode: Episode, now: int
    ) -> Tensor:
        """Return the query loss after all steps, or that of the prior where the step sees no image."""
        support = learner.seen(episode.support, now)
        ways, shots = support.y.shape
        if not shots:
            return objective.query_loss(learner.prior(objective, params, ways), episode)
        return learner.gradient.query_loss(learner, objective, params, support, episode, now)


class Untrained(Query):
    """Nothing is meta-trained: the control that adapts from the model's initialisation.

    Its value is the query loss, which nobody minimises.
    """

    meta_trained = False
    at_the_end = False
    unrolls = False

    def check(self, learner: Composition) -> None:
        """Check that nothing would have to be learned."""
        _trained_by_any(learner)
        if learner.start.learned or learner.rule is None or learner.rule.learned:
            part = learner.rule if learner.rule is not None and learner.rule.learned else learner.start
            raise MetagenError(
                f"{type(part).__name__} says nothing before it was meta-trained: use "
                "learner/meta_loss=query, or, as a control, learner=scratch"
            )
        _no_steps(learner, "nothing is meta-trained")


class MultiStep(MetaLoss):
    r"""The loss after every step, weighed: what learns from the whole way.

    .. math:: \sum_{i=1}^S w_i L(\phi_i; \text{query}), \quad
              w_i = e \frac{i^p}{\sum_j j^p} + (1 - e) [i = S]

    With p = 0 and e from 1 to 0 in the course of meta-training this is MAML++ (Antoniou, Edwards and
    Storkey, *How to Train Your MAML*, ICLR 2019); with e = 1 it trains learned optimizers (Andrychowicz et
    al., *Learning to learn by gradient descent by gradient descent*, NeurIPS 2016, with p = 0).

    Args:
        early: e, from 0 to 1, the share that is spread over all steps; or a schedule of it.
        late: p >= 0, which weighs later steps more.
        on_query: take the losses on the query images; else on the images of the next step.
    """

    @checked
    def __init__(
        self, early: Probability | Schedule = 1.0, late: NonNegativeFloat = 0.0, on_query: bool = True
    ) -> None:
        super().__init__()
        self.early, self.late, self.on_query = early, late, on_query
        self.lowers = "query" if on_query else "none"

    @property
    def every_step(self) -> bool:
        """Whether every step counts throughout meta-training."""
        return not isinstance(self.early, Schedule) and self.early > 0

    def check(self, learner: Composition) -> None:
        """Check that there are steps to weigh."""
        _trained_by_any(learner)
        if learner.rule is None or learner.takes_none:
            raise MetagenError(
                "learner.meta_loss=MultiStep weighs the losses after 1 or more steps: use learner.steps=1 or "
                "more, with a rule such as learner/rule=sgd, or learner/meta_loss=query"
            )
        if learner.start.any_shots and not self.on_query:
            raise MetagenError(
                "learner.start.any_shots=true leaves steps without an image to take their loss on: use "
                "learner.meta_loss.on_query=true"
            )

    def weights(self, count: int, now: int | None) -> list[float]:
        """Return w_1 ... w_S, which sum to 1, at meta-training step ``now``."""
        early = at(self.early, now)
        powers = [i**self.late for i in range(1, count + 1)]
        shares = [early * power / sum(powers) for power in powers]
        return [*shares[:-1], 1 - sum(shares[:-1])]

    def forward(
        self, learner: Composition, objective: Objective, params: Params, episode: Episode, now: int
    ) -> Tensor:
        """Return sum_i w_i L(phi_i; query), a scalar."""
        support, steps = learner.seen(episode.support, now), learner.steps_at(now)
        ways, shots = support.y.shape
        if not shots:
            return objective.query_loss(learner.prior(objective, params, ways), episode)

        def query_loss(params: Params, phi: Params, episode: Episode) -> Tensor:
            return objective.query_loss({**params, **phi}, episode)

        def next_loss(params: Params, phi: Params, shots: Shots) -> Tensor:
            return objective.loss({**params, **phi}, shots)

        losses = []
        path = learner.path(objective, params, support, range(1, steps + 1), now)
        for index, (weight, state) in enumerate(zip(self.weights(steps, now), path, strict=True), 1):
            if weight:
                if self.on_query:
                    loss = learner.gradient.kept(query_loss, params, state.params, episode)
                else:
                    seen = learner.shots_at(support, index)
                    loss = learner.gradient.kept(next_loss, params, state.params, seen)
                losses.append(weight * loss)
        return torch.stack(losses).sum()


class Displacement(MetaLoss):
    r"""Move the start towards the adapted parameters: Reptile (Nichol, Achiam and Schulman, 2018).

    .. math:: \theta \leftarrow \theta + \epsilon \, \frac{1}{T} \sum_t (\phi_t - \theta)

    The meta-loss is ``0.5 ||z_0 - stop_gradient(z_S)||^2`` over what moves, whose gradient for z_0 = theta is
    theta - phi: plain SGD with rate epsilon on it is the published rule, and any other optimizer may take its
    place. A start that was read from the support learns to write what the steps arrive at. A task has no
    query set here: all of its images are adapted to. Rows of per-class tables are averaged.
    """

    surrogate = True
    unrolls, moves_start = False, True
    lowers = "none"  # it has no query loss

    def check(self, learner: Composition) -> None:
        """Check that there is a start to move and that no part waits for a gradient through the steps."""
        _trained_by_any(learner)
        name = "learner.meta_loss=Displacement"
        if learner.rule is None or learner.takes_none:
            raise MetagenError(
                f"{name} moves the start to where 1 or more steps lead: use learner.steps=1 or more, with a "
                "rule such as learner/rule=adam"
            )
        if learner.rule.learned:
            raise MetagenError(
                f"{name} takes no derivative of the steps, from which {type(learner.rule).__name__} would "
                "learn: use learner/rule=adam, or learner/meta_loss=query"
            )
        if learner.start.random or learner.start.any_shots:
            raise MetagenError(
                f"{name} has no start to move where each episode draws its own: use learner/start=theta, or "
                f"learner/meta_loss=multi_step"
            )
        if not learner.gradient.constant:
            raise MetagenError(
                f"{name} takes no derivative of the steps, and keeps no graph to cut, recompute or solve "
                "for: use learner/gradient=first_order, or learner/meta_loss=query"
            )

    def bind(self, objective: Objective, learner: Composition) -> None:
        """Check that what the start wrote moves, or its writer would not learn."""
        unmoved = set(learner.start.writes(objective)) - set(learner.adapts.names)
        if learner.start.learned and unmoved:
            raise MetagenError(
                f"learner.meta_loss=Displacement: {type(learner.start).__name__} writes {min(unmoved)}, "
                "which does not move and so would not be learned: use learner.adapts=all, or "
                "learner/meta_loss=query"
            )

    def forward(
        self, learner: Composition, objective: Objective, params: Params, episode: Episode, now: int
    ) -> Tensor:
        """Return 0.5 ||z_0 - z_S||^2 with z_S held constant."""
        shots = episode.join()
        ways, model = shots.x.shape[0], objective.model
        start, end = learner.path(objective, params, shots, [0, learner.steps_at(now)], now)
        (z0, _), (z, _) = learner.adapts.read(start), learner.adapts.read(end)
        share = {n: 1 / ways if n in model.per_class else 1.0 for n in z0}
        gaps = [share[n] * (z0[n] - z[n].detach()).square().sum() for n in z0]
        return 0.5 * torch.stack(gaps).sum()


class _Rows(Protocol):
    """A start that has a row for each training class."""

    def rows(self, objective: Objective) -> Params:
        """Return the tables of all training classes."""
        ...


class Joint(MetaLoss):
    r"""Ordinary pretraining on all training classes at once, each with a row c_j of its own.

    .. math:: \min_{\theta, c} \sum_j L(\theta, c_j; \text{images of class } j)

    A classifier so learns to tell *all* training classes apart. Adaptation is fine-tuning, which the
    pretraining knows nothing of.
    """

    unrolls = False
    lowers = "all"  # it differentiates once

    def check(self, learner: Composition) -> None:
        """Check that the start has a row for each training class and that nothing waits for steps."""
        name = "learner.meta_loss=Joint"
        if learner.start.trained_by != "joint":
            raise MetagenError(
                f"{name} learns a row for each training class, from which {type(learner.start).__name__} "
                "does not start: use learner/start=class_mean, or learner/meta_loss=query"
            )
        if learner.rule is not None and learner.rule.learned:
            raise MetagenError(
                f"{name} takes no steps from which {type(learner.rule).__name__} would learn: use "
                f"learner/rule=sgd, or learner/meta_loss=query with learner/start=theta"
            )
        _no_steps(learner, "joint pretraining takes none")

    def forward(
        self, learner: Composition, objective: Objective, params: Params, episode: Episode, now: int
    ) -> Tensor:
        """Return the joint loss on all images of the episode, under their training classes."""
        shots = episode.join()
        shots = shots._replace(y=episode.classes[:, None].expand(shots.y.shape))
        tables = cast(_Rows, learner.start).rows(objective)
        return objective.loss({**params, **tables}, shots)


class Sequence(MetaLoss):
    r"""The loss of every image given those before it, for a model that reads sequences of images.

    .. math:: \frac{1}{N T} \sum_{n, t} -\log p_\theta(x_{nt} \mid x_{n1}, ..., x_{n,t-1})

    over the T = K + Q images of each class, in the random order in which the episode drew them: a
    training step sees every number of context images from 0 to T - 1 at once, none of which contains
    the target (after Brown et al., *Language models are few-shot learners*, NeurIPS 2020, and Müller et
    al., *Transformers can do Bayesian inference*, ICLR 2022).

    A model that holds images but is no sequence model is trained by its loss on the Q query images, given
    the K support images. One without parameters (``model=warp``) has nothing to be trained.
    """

    unrolls = False
    lowers = "all"  # it differentiates once

    def check(self, learner: Composition) -> None:
        """Check that the model has the support images before it when it adapts, too."""
        if not learner.start.sees_all:
            raise MetagenError(
                f"learner.meta_loss=Sequence trains a model that reads the support images themselves, which "
                f"{type(learner.start).__name__} does not hand on: use learner/start=memory, or "
                f"learner/meta_loss=query"
            )
        _no_steps(learner, "a sequence model takes none")

    def forward(
        self, learner: Composition, objective: Objective, params: Params, episode: Episode, now: int
    ) -> Tensor:
        """Return the mean over all images of -log p given those before, or the loss of the query images."""
        if not hasattr(objective.model, "sequence_nll"):
            return learner.gradient.query_loss(learner, objective, params, episode.support, episode, now)
        return objective.call("sequence_nll", params, episode.join().x).mean()


def _trained_by_any(learner: Composition) -> None:
    if (needed := learner.start.trained_by) is not None:
        raise MetagenError(
            f"learner.start={type(learner.start).__name__} is learned by pretraining alone: use "
            f"learner/meta_loss={needed}, or learner/start=theta"
        )


def _no_steps(learner: Composition, why: str) -> None:
    if not learner.takes_none:
        raise MetagenError(
            f"learner.steps={learner.steps}: those are the steps in meta-training, and {why}; use "
            f"learner.steps=0 (learner.test_steps are those in validation and test)"
        )
    if not learner.gradient.default:
        raise MetagenError(
            f"{why}, so that no gradient passes the steps as learner.gradient says: use "
            f"learner/gradient=unrolled as it is"
        )
