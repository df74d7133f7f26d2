"""The search space of an adaptive sweep, from overrides."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from metagen.errors import MetagenError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Space(NamedTuple):
    """What is searched and what is given.

    searched: distribution by the key of an override.
    given:    overrides that all trials have.
    """

    searched: "dict[str, BaseDistribution]"
    given: list[str]

    def overrides(self, values: dict[str, Any]) -> list[str]:
        """Return the overrides of a trial with ``values`` by key."""
        return [*self.given, *(f"{key}={_text(value)}" for key, value in values.items())]


def space_of(overrides: Sequence[Override]) -> Space:
    """Return the search space of parsed overrides.

    ``a,b`` and ``choice(a,b)`` are categories; ``range(1,5)`` are 1, 2, 3, 4; ``interval(1e-4,1e-1)`` is
    continuous, in logarithms under ``tag(log, interval(...))``, whole numbers under ``int(interval(1,8))``.

    Raises:
        MetagenError: nothing is searched, or a range has nothing in it.
    """
    searched: dict[str, BaseDistribution] = {}
    given: list[str] = []
    for one in overrides:
        if one.is_sweep_override():
            searched[one.get_key_element()] = _distribution(one)
        else:
            given.append(f"{one.get_key_element()}={one.get_value_element_as_str()}")
    if not searched:
        raise MetagenError("nothing to search: write an override as interval(a,b), range(a,b) or choice(a,b)")
    return Space(searched, given)


def _distribution(one: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep = one.value()
    try:
        if isinstance(sweep, IntervalSweep):
            assert sweep.start is not None
            assert sweep.end is not None
            log = "log" in sweep.tags
            if isinstance(sweep.start, int) and isinstance(sweep.end, int):
                return IntDistribution(sweep.start, sweep.end, log=log)
            return FloatDistribution(sweep.start, sweep.end, log=log)
        if isinstance(sweep, RangeSweep):
            values = list(sweep.range())
            if all(isinstance(value, int) for value in values):
                return IntDistribution(values[0], values[-1], step=int(sweep.step))
            return FloatDistribution(values[0], values[-1], step=float(sweep.step))
        assert isinstance(sweep, ChoiceSweep) or one.is_discrete_sweep()
        return CategoricalDistribution(list(one.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise MetagenError(f"{one.input_line}: cannot be searched ({error or 'it is empty'})") from error


def _text(value: Any) -> str:
    """Return a value as an override has it; a category is text that already is one."""
    return value if isinstance(value, str) else repr(value)
