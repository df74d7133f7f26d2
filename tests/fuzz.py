"""Try every bad value of every key: ``python tests/fuzz.py``, or a share of the cases.

A value is refused by the schema in one line that names the key, exit code 2; or it is in its range, and then
model, learner and all else is built of it or refused in one line.
"""

import argparse
import contextlib
import logging
import math
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bad_values import Case, cases, choices, composed, with_value

from metagen.config.schema import check
from metagen.errors import MetagenError
from metagen.jobs import build


def outcome(case: Case, config: dict[str, Any]) -> tuple[str, str]:
    """Return what becomes of a case, in a word, and what was said."""
    try:
        changed = with_value(config, case)
        check(changed)
    except MetagenError as error:
        text = str(error)
        plain = error.code == 2 and "\n" not in text and case.key.split(".")[-1] in text
        return ("refused" if plain else "unclear"), text
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    if nonsense(case.value):
        return "nonsense", "accepted"
    try:
        build.parts(changed)
    except MetagenError as error:
        return ("refused when built" if error.code == 2 and "\n" not in str(error) else "unclear"), str(error)
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    return "in range", ""


def nonsense(value: Any) -> bool:
    """Return whether a value is one that no key takes: not finite, or too large for 64 bits."""
    if isinstance(value, list):
        return any(map(nonsense, value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (not math.isfinite(value) or abs(value) >= 2**63)


def run(share: float = 1.0, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Try a share of all cases, the same for a seed; return how many ended how, and the faults."""
    draw = random.Random(seed)
    counts, faults, seen = Counter[str](), [], set()
    some = choices()
    for overrides in some if share == 1 else draw.sample(some, max(1, round(share**0.5 * len(some)))):
        config = composed(overrides)
        for case in cases(overrides, config, seen):
            if share < 1 and draw.random() > share**0.5:
                continue
            kind, text = outcome(case, config)
            counts[kind] += 1
            if kind in ("traceback", "nonsense", "unclear"):
                faults.append(f"{kind}: {' '.join(case.overrides)} {case.key}={case.value!r}: {text[:200]}")
    return counts, faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    clock = time.monotonic()
    with contextlib.redirect_stderr(None):
        counts, faults = run(args.share, args.seed)
    for fault in faults:
        sys.stdout.write(f"{fault}\n")
    took = time.monotonic() - clock
    sys.stdout.write(f"{sum(counts.values()):,} cases in {took:.0f} s: {dict(counts)}\n")
    sys.exit(bool(faults))
