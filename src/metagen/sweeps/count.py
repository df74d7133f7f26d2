"""The number of jobs of a sweep, counted before they are multiplied out."""

import math
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException

from metagen.config.overrides import by_key, key_of
from metagen.errors import UsageError

MOST = 1000
"""Jobs that a sweep may have unless it says how many it is to have."""
SPACE = "hydra.sweeper.params."
"""Of a search space: what follows is the key of an override."""


def check_jobs(words: Sequence[str], most: int = MOST) -> None:
    """Refuse a sweep of more jobs than were asked for, or of none.

    Args:
        words: overrides of the whole sweep.
        most: jobs that it may have.

    Raises:
        UsageError: see above.
    """
    given = by_key(words)
    if given.get("hydra/sweeper") == "optuna":
        trials = given.get("hydra.sweeper.n_trials", "1")
        count = int(trials) if trials.isdigit() else 1  # what is no number is refused by the sweeper
    else:
        count = _product([word.lstrip("+").removeprefix(SPACE) for word in words if not _of_hydra(word)])
    if count > most:
        raise UsageError(
            f"this sweep is of {count:,} jobs, each a training of its own, and more than {most:,} are done "
            f"only if you say so: add --up-to {count}, or sweep over fewer values"
        )


def _of_hydra(word: str) -> bool:
    return key_of(word).startswith(("hydra.", "hydra/")) and not key_of(word).startswith(SPACE)


def _product(words: Sequence[str]) -> int:
    """Return how many jobs the values of overrides make; of two for a key the last one counts."""
    parser, counts = OverridesParser.create(), dict[str, int]()
    for word in words:
        try:
            one = parser.parse_override(word)
        except HydraException:
            return 1  # Hydra says what is wrong with it
        counts[one.get_key_element()] = _values(one) if one.is_sweep_override() else 1
    return math.prod(counts.values())


def _values(override: Override) -> int:
    """Return how many values an override of a sweep has; 1 where only Hydra knows, or a sampler chooses."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if not isinstance(value, RangeSweep):
        return 1
    start, stop, step = float(value.start or 0), float(value.stop or 0), float(value.step)
    if not step or not all(map(math.isfinite, (start, stop, step))):
        raise UsageError(f"{override.input_line}: a range that never ends; expected range(START,STOP,STEP)")
    count = max(0, math.ceil((stop - start) / step))
    if not count:
        raise UsageError(
            f"{override.input_line}: a range without any number; expected range(START,STOP), START below STOP"
        )
    return count
