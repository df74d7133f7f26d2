"""Plain training: no adaptation at all."""

from metagen.core.episode import Params, Shots
from metagen.core.learner import Learner, State
from metagen.core.objective import Objective
from metagen.errors import MetagenError


class Supervised(Learner):
    """phi = theta: the meta-loss is the ordinary loss of a batch of labelled images."""

    few_shot = False

    def __init__(self) -> None:
        super().__init__(steps=0)

    def bind(self, objective: Objective, classes: int) -> None:
        """Check that the model has one output for each class, not a row to be adapted."""
        if objective.model.kind != "classify":
            raise MetagenError(
                f"learner=supervised needs a classifier, such as model=basenet; to train "
                f"{type(objective.model).__name__} on all classes jointly use learner=transfer"
            )

    def begin(self, objective: Objective, params: Params, support: Shots) -> State:
        """Return theta: nothing differs from it."""
        return State({}, {})

    def prior(self, objective: Objective, params: Params, ways: int) -> Params:
        """Return theta: a batch of labelled images has no support, and its labels are of all classes."""
        return params
