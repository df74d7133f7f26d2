"""Update rules of the inner loop: from a gradient to the next parameters."""

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from metagen.core.episode import Params
from metagen.errors import MetagenError
from metagen.functional.autocast import Lowered
from metagen.ranges import Decay, NonNegativeFloat, PositiveFloat, Turns, checked


class Rule(nn.Module):
    """phi_{i+1} = phi_i + u(g_i, slots_i), for one task, differentiable in all of its inputs.

    A rule of one's own writes :meth:`update`, and :meth:`init` where it remembers something. One that
    learns sets ``learned`` and creates its parameters in the constructor or in :meth:`bind`.

    Args:
        rate: the step size alpha > 0.

    Attributes:
        learned: whether it has parameters that are meta-trained; it then learns how far it steps.
        lowers: what mixed precision may lower beside it.
    """

    learned: ClassVar[bool] = False
    lowers: ClassVar[Lowered] = "all"

    @checked
    def __init__(self, rate: PositiveFloat) -> None:
        super().__init__()
        self.rate = rate

    def bind(self, params: Params) -> None:
        """Create what the rule learns for the parameters ``params``."""

    def init(self, params: Params) -> dict[str, Params]:
        """Return the slots before the first step."""
        return {}

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return the next parameters and slots after step ``index`` (from 0)."""
        raise NotImplementedError

    def at_rate(self, rate: float) -> "Rule":
        """Return this rule with another step size alpha > 0.

        Raises:
            MetagenError: the step size is none, or the rule learns how far it goes.
        """
        if self.learned:
            raise MetagenError(
                f"learner.test_rate={rate}: {type(self).__name__} learns how far it steps; use test_rate=null"
            )
        if rate <= 0:
            raise MetagenError(f"learner.test_rate={rate}: expected a step size above 0, or null")
        other = copy.copy(self)
        other.rate = rate
        return other

    def check_any_net(self) -> None:
        """Check that the rule can train any network, not only the one that it was trained with.

        Raises:
            MetagenError: it learned something for each parameter of its own model.
        """
        if self.learned:
            raise MetagenError(
                f"{type(self).__name__} learned numbers for the layers of its own model and fits no other "
                f"network: use a run of learner=learned_optimizer"
            )


class Sgd(Rule):
    """Gradient descent: phi - alpha g."""

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return phi - alpha g; there are no slots."""
        return {n: torch.add(p, grads[n], alpha=-self.rate) for n, p in params.items()}, slots


class Momentum(Rule):
    """Gradient descent with momentum (Polyak, 1964): v_{i+1} = mu v_i + g_i, phi - alpha v_{i+1}.

    Args:
        rate: the step size alpha.
        mu: decay of the velocity, in [0, 1).
    """

    @checked
    def __init__(self, rate: PositiveFloat, mu: Decay = 0.9) -> None:
        super().__init__(rate)
        self.mu = mu

    def init(self, params: Params) -> dict[str, Params]:
        """Return a velocity of zero."""
        return {"velocity": {n: torch.zeros_like(p) for n, p in params.items()}}

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return phi - alpha v and the new velocity v."""
        velocity = {n: self.mu * slots["velocity"][n] + g for n, g in grads.items()}
        moved = {n: torch.add(p, velocity[n], alpha=-self.rate) for n, p in params.items()}
        return moved, {"velocity": velocity}


class LearnedRates(Rule):
    """Meta-SGD: phi - alpha * g with a learned alpha of the shape of phi.

    Li et al., *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*, 2017. Per-class tables
    share one row of rates.

    Args:
        rate: the value at which every rate starts.
    """

    learned = True

    def bind(self, params: Params) -> None:
        """Create one rate for every entry of ``params``."""
        self.rates = nn.ParameterDict(
            {slug(n): nn.Parameter(torch.full_like(p, self.rate)) for n, p in params.items()}
        )

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return phi - alpha * g; there are no slots."""
        return {n: p - self.rates[slug(n)] * grads[n] for n, p in params.items()}, slots


class LayerStepRates(Rule):
    """One learned rate for every parameter tensor and inner step: phi - alpha_{l,i} g.

    Antoniou, Edwards and Storkey, *How to Train Your MAML*, ICLR 2019. Steps beyond the learned ones
    take the last one's rate.

    Args:
        rate: the value at which every rate starts.
        count: number of steps with a rate of their own, those of meta-training.
    """

    learned = True

    @checked
    def __init__(self, rate: PositiveFloat, count: Turns) -> None:
        super().__init__(rate)
        self.count = count

    def bind(self, params: Params) -> None:
        """Create ``count`` rates for every tensor of ``params``."""
        like = next(iter(params.values()))
        self.rates = nn.ParameterDict(
            {slug(n): nn.Parameter(like.new_full((self.count,), self.rate)) for n in params}
        )

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return phi - alpha_{l,i} g; there are no slots."""
        at = min(index, self.count - 1)
        return {n: p - self.rates[slug(n)][at] * grads[n] for n, p in params.items()}, slots


class Adam(Rule):
    """Adam with bias correction (Kingma and Ba, ICLR 2015).

    Args:
        rate: the step size alpha.
        beta1: decay of the mean of the gradients.
        beta2: decay of the mean of their squares.
        eps: added to the squares, inside the root, so that the rule has a derivative at g = 0.
    """

    @checked
    def __init__(
        self, rate: PositiveFloat, beta1: Decay = 0.9, beta2: Decay = 0.999, eps: NonNegativeFloat = 1e-16
    ) -> None:
        super().__init__(rate)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def init(self, params: Params) -> dict[str, Params]:
        """Return zero moments."""
        return {slot: {n: torch.zeros_like(p) for n, p in params.items()} for slot in ("mean", "square")}

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return phi - alpha m / sqrt(v + eps) and the new moments."""
        mean = {n: torch.lerp(g, slots["mean"][n], self.beta1) for n, g in grads.items()}
        square = {n: torch.lerp(g * g, slots["square"][n], self.beta2) for n, g in grads.items()}
        c1, c2 = 1 - self.beta1 ** (index + 1), 1 - self.beta2 ** (index + 1)
        scale = self.rate / c1

        def next_value(n: str, p: Tensor) -> Tensor:
            return p - scale * mean[n] * torch.rsqrt(square[n] / c2 + self.eps)

        return {n: next_value(n, p) for n, p in params.items()}, {"mean": mean, "square": square}


def slug(name: str) -> str:
    """Return ``name`` without dots, which a ParameterDict does not take."""
    return name.replace(".", "/")
