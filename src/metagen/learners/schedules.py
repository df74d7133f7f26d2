"""Schedules: settings as functions of the number of the meta-training step."""

from metagen.ranges import NonNegativeFloat, NonNegativeInt, checked


class Schedule:
    """A number that depends on the meta-training step ``now``, and on nothing else.

    Being told the step rather than counting it, it gives a resumed run what it would have had.
    """

    def __call__(self, now: int | None) -> float:
        """Return the value at step ``now``, from 0; ``None`` is after meta-training."""
        raise NotImplementedError


class Until(Schedule):
    """1 before meta-training step ``step``, 0 from there on.

    Args:
        step: number of a meta-training step, 0 or more.

    >>> [Until(5)(now) for now in (0, 4, 5, None)]
    [1.0, 1.0, 0.0, 0.0]
    """

    @checked
    def __init__(self, step: NonNegativeInt) -> None:
        self.step = step

    def __call__(self, now: int | None) -> float:
        """Return 1 or 0."""
        return float(now is not None and now < self.step)


class Linear(Schedule):
    """From ``start`` to ``end`` in a straight line over ``steps`` meta-training steps, then ``end``.

    Args:
        start: the value at step 0.
        end: the value from step ``steps`` on.
        steps: 0 is ``end`` from the beginning.

    >>> [Linear(1.0, 0.0, 10)(now) for now in (0, 4, 10, None)]
    [1.0, 0.6, 0.0, 0.0]
    """

    @checked
    def __init__(self, start: NonNegativeFloat, end: NonNegativeFloat, steps: NonNegativeInt) -> None:
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, now: int | None) -> float:
        """Return the value on the line."""
        if now is None or now >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * now / self.steps


def at(setting: float | Schedule, now: int | None) -> float:
    """Return what a setting, constant or scheduled, is at meta-training step ``now``."""
    return setting(now) if isinstance(setting, Schedule) else setting
