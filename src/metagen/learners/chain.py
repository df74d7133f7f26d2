"""One learner after the other."""

from metagen.core.episode import Params, Shots
from metagen.core.learner import Learner, State
from metagen.core.objective import Objective
from metagen.errors import MetagenError


class Chain(Learner):
    """phi = U_second(U_first(theta; support); support).

    With an amortised learner first and gradient descent second, an encoder writes the starting
    point from which the gradient steps set out (Triantafillou et al., *Meta-Dataset*, ICLR 2020,
    do so for classification as Proto-MAML).

    Args:
        first: gives the starting point, with all of its own steps.
        second: gives the steps that are counted.
    """

    def __init__(self, first: Learner, second: Learner) -> None:
        super().__init__(second.steps, second.test_steps, second.checkpoint_steps)
        if not (first.meta_trained and second.meta_trained):
            raise MetagenError("learner=chain: scratch cannot be part of a chain, use gradient_descent")
        self.first, self.second = first, second

    def set_step(self, step: int) -> None:
        """Tell both learners."""
        self.first.set_step(step)
        self.second.set_step(step)

    def bind(self, objective: Objective, classes: int) -> None:
        """Bind both learners."""
        self.first.bind(objective, classes)
        self.second.bind(objective, classes)

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return the second learner's start from what the first one reached."""
        reached = self.first.begin(objective, params, support)
        for index in range(self.first.steps):
            reached = self.first.step(objective, params, reached, support, index)
        start = self.second.begin(objective, {**params, **reached.params}, support)
        return start._replace(params={**reached.params, **start.params})

    def seen(self, support: Shots) -> Shots:
        """Return what the first learner reads."""
        return self.first.seen(support)

    def step(self, objective: Objective, params: Params, state: State, support: Shots, index: int) -> State:
        """Return the state after a step of the second learner."""
        return self.second.step(objective, params, state, support, index)
