"""The learner that is composed of parts: start, rule, gradient, meta-loss, schedules."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metagen.core.episode import Episode, Params, Shots
from metagen.core.learner import State
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.autocast import Lowered, least
from metagen.learners.adapts import Adapts, Named
from metagen.learners.gradients import Unrolled
from metagen.learners.meta_losses import Query
from metagen.learners.parts import Composition, Gradient, MetaLoss
from metagen.learners.rules import Rule
from metagen.learners.schedules import Schedule
from metagen.learners.starts import Start
from metagen.ranges import AdaptationSteps, PositiveFloat, PositiveInt, checked


class MetaLearner(Composition):
    r"""phi_0 = start(theta, support), phi_{i+1} = rule(phi_i, grad L(phi_i; support)), and a loss of them.

    .. math:: \min_{\theta, w} \sum_t \text{meta\_loss}(\phi_t^{(0)}, \dots, \phi_t^{(S)}; \text{query}_t)

    with w what the parts themselves learn. Each of the names that people know is a choice of parts:

    - MAML (Finn et al., ICML 2017): theta, SGD, unrolled, query loss; FOMAML: of first order;
    - ANIL (Raghu et al., ICLR 2020) and CAVIA (Zintgraf et al., ICML 2019): the same, on the head or rows;
    - Meta-SGD (Li et al., 2017), MAML++ (Antoniou et al., ICLR 2019), iMAML (Rajeswaran et al., NeurIPS
      2019), Reptile (Nichol et al., 2018): other rules, meta-losses, gradients;
    - amortised learners and prototypes: a start that reads the support, alone or with steps after it.

    Args:
        start: phi_0.
        rule: the update rule of the steps; ``None`` takes none and stays at the start.
        gradient: how the meta-gradient passes the steps.
        meta_loss: of the adaptation.
        steps: S, inner steps in meta-training; or a schedule of them.
        test_steps: inner steps in validation and test; ``None`` means ``steps``, at the end of a schedule.
        test_rate: the rule's step size alpha in validation and test, where it is not learned; ``None`` is
            that of meta-training. A start that was trained for few long steps may lead further in short ones.
        adapts: which parameters move: ``"all"``, ``"head"`` (the model says which), ``"tables"`` (those with
            one row per class), glob patterns, or a part such as low-rank adapters.
        batch: support images of a class that a step sees, drawn anew for each; ``None`` means all.
        clip: the largest norm of the gradient by which a step goes, see :func:`clipped`; ``None`` is any.
            With ``sgd`` no step is then longer than alpha clip, whatever the model.

    Raises:
        MetagenError: the parts make no sense together; names what would fit.
    """

    @checked
    def __init__(
        self,
        start: Start,
        rule: Rule | None = None,
        gradient: Gradient | None = None,
        meta_loss: MetaLoss | None = None,
        steps: AdaptationSteps | Schedule = 0,
        test_steps: AdaptationSteps | None = None,
        test_rate: PositiveFloat | None = None,
        adapts: str | Sequence[str] | Adapts = "all",
        batch: PositiveInt | None = None,
        clip: PositiveFloat | None = None,
    ) -> None:
        scheduled = isinstance(steps, Schedule)
        super().__init__(round(steps(None)) if isinstance(steps, Schedule) else steps, test_steps)
        self.start, self.rule, self.batch, self.clip = start, rule, batch, clip
        self.schedule = steps if isinstance(steps, Schedule) else None
        self.adapts = adapts if isinstance(adapts, Adapts) else Named(adapts)
        self.gradient = Unrolled() if gradient is None else gradient
        self.criterion = Query() if meta_loss is None else meta_loss
        self._check(test_rate, given=adapts != "all" or scheduled)
        # In a tuple it is no submodule: a rule that has another rate in the test has no parameters.
        self._test_rule = () if rule is None or test_rate is None else (rule.at_rate(test_rate),)
        self.meta_trained = self.criterion.meta_trained
        self.few_shot = self.start.few_shot
        self.surrogate = self.criterion.surrogate or self.gradient.surrogate
        self.lowers = self._lowers()
        self.register_load_state_dict_pre_hook(_renamed)

    def _check(self, test_rate: float | None, given: bool) -> None:
        """Refuse parts that make no sense together."""
        start, rule = type(self.start).__name__, type(self.rule).__name__
        if self.rule is None:
            settings = (self.steps, self.test_steps, given)
            numbers = (test_rate, self.batch, self.clip)
            if any(settings) or any(one is not None for one in numbers) or not self.gradient.default:
                raise MetagenError(
                    "learner.rule=null takes no steps, so that nothing is to be said of them: use "
                    "learner.steps=0 learner.test_steps=0 and the defaults of all else, or a rule such as "
                    "learner/rule=sgd"
                )
            if not self.start.reads and self.start.few_shot:
                raise MetagenError(
                    f"learner.start={start} without a rule adapts to nothing: use learner/rule=sgd, or a "
                    "start that reads the support, such as learner/start=encoder"
                )
        elif not self.start.few_shot:
            raise MetagenError(
                f"learner.start={start} has no support set for {rule} to go by: use learner/start=theta"
            )
        elif self.start.sees_all:
            raise MetagenError(
                f"learner.start={start}: a model that has the support images before it learns nothing from "
                f"steps on them; use learner/rule=null, or learner/start=theta"
            )
        elif self.start.random and not self.adapts.direct:
            raise MetagenError(
                f"learner.start={start}: adapters change layers that were trained; use learner.adapts=all, "
                f"or learner/start=theta"
            )
        elif self.rule.learned and self.takes_none and self.criterion.meta_trained:
            raise MetagenError(
                f"learner.steps=0: {rule} learns from steps in meta-training; use learner.steps=1 or more, "
                f"or learner/rule=sgd"
            )
        self.criterion.check(self)
        self.gradient.check(self)

    def _lowers(self) -> Lowered:
        if self.rule is None:
            return self.start.lowers
        rule: Lowered = self.rule.lowers if self.criterion.unrolls else "all"
        return least((self.criterion.lowers, self.gradient.lowers, rule))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what the steps move."""
        return self.adapts.names

    @property
    def takes_steps(self) -> bool:
        """Whether the learner does anything after it has read the images."""
        return self.rule is not None

    def describe(self) -> str:
        """Return the parts in a few words, for messages."""
        parts = (self.start, self.rule, self.gradient, self.criterion)
        return " + ".join(type(part).__name__ for part in parts if part is not None)

    def steps_at(self, now: int | None) -> int:
        """Return the number of adaptation steps at meta-training step ``now``, or in the test."""
        if now is None or self.schedule is None:
            return super().steps_at(now)
        return max(0, round(self.schedule(now)))

    def steps_kept(self, now: int | None) -> int:
        """Return how many states the graph remembers: none where the steps' gradients are constants."""
        constant = self.rule is None or not self.criterion.unrolls
        return 0 if constant or self.gradient.constant else self.steps_at(now)

    def bind(self, objective: Objective, classes: int) -> None:
        """Find what moves, check that every part fits the model and create their meta-parameters."""
        if getattr(objective.model, "needs_memory", False) and not self.start.sees_all:
            raise MetagenError(
                f"{type(objective.model).__name__} varies the support images, which "
                f"{type(self.start).__name__} does not hand over: use learner=in_context"
            )
        if self.rule is not None:
            self.rule.bind(self.adapts.bind(objective))
            if not self.criterion.unrolls:
                # No gradient will reach them: adapters start where they were put.
                self.adapts.requires_grad_(self.criterion.moves_start)
            if self.start.random and not self.rule.learned and self.meta_trained and not self.adapts.fixed:
                raise MetagenError(
                    "nothing would be learned: every episode draws all that moves and "
                    f"{type(self.rule).__name__} is fixed; use learner/start=theta, a learned rule such as "
                    "learner/rule=lstm, or, as a control, learner/meta_loss=untrained"
                )
        self.start.bind(objective, classes, self.names)
        self.gradient.bind(objective, self)
        self.criterion.bind(objective, self)
        parameters = {**objective.params(), **dict(self.named_parameters())}
        self.meta_trained = self.criterion.meta_trained and bool(parameters)

    def begin(self, objective: Objective, params: Params, support: Shots, now: int | None = None) -> State:
        """Return the state before the first step: phi_0 and what the parts remember of it."""
        phi = self.start(objective, params, support)
        if self.rule is None:
            return State(phi, {})
        whole = objective.for_ways({**params, **phi}, support.x.shape[0])
        z = self.adapts.init(whole)
        tables = {n: whole[n] for n in objective.model.per_class}
        slots = {**self.rule.init(z), **self.gradient.slots(z), **self.adapts.keep(z, whole)}
        return State({**phi, **tables, **self.adapts.write(z, whole)}, slots)

    def step(
        self,
        objective: Objective,
        params: Params,
        state: State,
        support: Shots,
        index: int,
        now: int | None = None,
    ) -> State:
        """Return the state after one step of the rule on the support loss."""
        rule = self._test_rule[0] if now is None and self._test_rule else self.rule
        if rule is None:
            return state
        z, start = self.adapts.read(state)
        phi, shots = {**params, **state.params, **start}, self.shots_at(support, index)
        grads = self.gradient.of_support(self, objective, z, phi, shots, state, now)
        if self.clip is not None:
            grads = clipped(grads, self.clip)
        moved, slots = rule.update(z, grads, state.slots, index)
        if moved.keys() != z.keys():
            raise MetagenError(
                f"{type(rule).__name__}.update returned {', '.join(moved) or 'nothing'}: expected a value "
                f"for each of {', '.join(z)}"
            )
        kept = {**state.slots, **slots, **self.adapts.keep(moved, start)}
        return State({**state.params, **self.adapts.write(moved, start)}, kept)

    def advance(
        self,
        objective: Objective,
        params: Params,
        state: State,
        support: Shots,
        steps: range,
        now: int | None,
    ) -> State:
        """Return the state after ``steps``, with the graph that the gradient needs."""
        return self.gradient.advance(self, objective, params, state, support, steps, now)

    def prior(self, objective: Objective, params: Params, ways: int) -> Params:
        """Return phi where nothing was seen, as the start says."""
        return self.start.prior(objective, params, ways)

    def seen(self, support: Shots, now: int | None) -> Shots:
        """Return what meta-training step ``now`` reads of the support: all, or as much as the start says."""
        return support if now is None else self.start.seen(support, now)

    def meta_loss(self, objective: Objective, params: Params, episode: Episode, now: int = 0) -> Tensor:
        """Return the meta-loss of one task, a scalar."""
        return self.criterion(self, objective, params, episode, now)


def clipped(grads: Params, most: float) -> Params:
    r"""Return a gradient of one task, all tensors together, with a Euclidean norm of at most ``most``.

    .. math:: g \min(1, c / \|g\|)

    (Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, ICML 2013.) A
    shorter one stays as it is, to the last bit. It is differentiable, so that a meta-gradient knows of it.

    >>> clipped({"a": torch.tensor([3.0, 0.0]), "b": torch.tensor(4.0)}, 1.0)["a"]
    tensor([0.6000, 0.0000])
    """
    # The largest entry first: the square of a gradient overflows long before the gradient does.
    top = torch.stack([g.abs().max() for g in grads.values()]).max().detach().clamp(min=most)
    square = torch.stack([(g / top).square().sum() for g in grads.values()]).sum() * (top / most) ** 2
    long = square > 1
    scale = torch.where(long, torch.rsqrt(torch.where(long, square, 1.0)), 1.0)
    return {n: g * scale for n, g in grads.items()}


def _renamed(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the names of today to what checkpoints from before the parts hold."""
    for old in [name for name in state if name.startswith(prefix)]:
        name = old.removeprefix(prefix)
        if name == "start" and isinstance(state[old], torch.Tensor):
            name = "start.moments"
        name = name.removeprefix("second.")
        name = f"start.{name.removeprefix('first.')}" if name.startswith("first.") else name
        if name.split(".")[0] in ("tables", "reader", "rows", "modulation"):
            name = f"start.{name}"
        if prefix + name != old:
            state[prefix + name] = state.pop(old)
