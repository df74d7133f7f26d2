"""Try every bad value of every key: ``python tests/fuzz.py``, or a share of the cases.

A value is refused by the schema in one line that names the key, exit code 2; or it is in its range, and then
model, learner and all else is built of it or refused in one line.
"""

import argparse
import contextlib
import logging
import math
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_commands
from bad_values import Case, cases, choices, composed, with_value

from metagen.config.schema import check
from metagen.errors import MetagenError
from metagen.files import write_json
from metagen.jobs import build
from metagen.reading import read_json

FAULTS = ("traceback", "nonsense", "unclear", "endless")
"""Ends that no case should have."""
LONGEST = 30
"""Seconds in which whatever is in its range is built."""


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
    signal.alarm(LONGEST)
    try:
        build.parts(changed)
    except TimeoutError:
        return "endless", f"not built within {LONGEST} s"
    except MetagenError as error:
        return ("refused when built" if error.code == 2 and "\n" not in str(error) else "unclear"), str(error)
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return "in range", ""


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError


def nonsense(value: Any) -> bool:
    """Return whether a value is one that no key takes: not finite, or larger than anything here."""
    if isinstance(value, list):
        return any(map(nonsense, value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (not math.isfinite(value) or abs(value) >= 10**12)


class Found(NamedTuple):
    """How many cases ended how, the faults in a line each, and the keys that were seen."""

    counts: Counter[str]
    faults: list[str]
    seen: set[tuple[str, ...]]

    def add(self, case: Case, kind: str, text: str) -> None:
        """Count a case."""
        self.counts[kind] += 1
        if kind in FAULTS:
            self.faults.append(f"{kind}: {' '.join(case.overrides)} {case.key}={case.value!r}: {text[:200]}")


def run(share: float = 1.0, seed: int = 0, journal: Path | None = None, seconds: float = math.inf) -> Found:
    """Try a share of all cases, the same for a seed.

    Args:
        share: of the cases.
        seed: of what the share holds.
        journal: a file that keeps what was found, so that a run that was stopped goes on from there.
        seconds: after which it stops, at the next choice of a group.
    """
    draw, clock = random.Random(seed), time.monotonic()
    found, done = _kept(journal)
    some = choices() if share == 1 else draw.sample(choices(), max(1, round(share**0.5 * len(choices()))))
    for overrides in some:
        if list(overrides) in done or time.monotonic() - clock > seconds:
            continue
        config = composed(overrides)
        for case in cases(overrides, config, found.seen):
            if share == 1 or draw.random() < share**0.5:
                found.add(case, *outcome(case, config))
        done.append(list(overrides))
        if journal is not None:
            write_json(journal, {"counts": found.counts, "faults": found.faults, "done": done,
                                 "seen": sorted(found.seen)})  # fmt: skip
    if len(done) < len(some):
        sys.stdout.write(f"{len(done)} of {len(some)} choices; the same command goes on\n")
    return found


def _kept(journal: Path | None) -> tuple[Found, list[list[str]]]:
    """Return what a journal holds."""
    if journal is None or not journal.is_file():
        return Found(Counter(), [], set()), []
    kept = read_json(journal)
    return Found(Counter(kept["counts"]), kept["faults"], {tuple(one) for one in kept["seen"]}), kept["done"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--seconds", type=float, default=math.inf)
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")
    logging.disable()
    clock = time.monotonic()
    with contextlib.redirect_stderr(None):
        found = run(args.share, args.seed, args.journal, args.seconds)
    if args.share == 1 and args.seconds == math.inf:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["METAGEN_CACHE"] = folder
            fuzz_commands.prepare(Path(folder))
            count, faults = fuzz_commands.run_all(Path(folder))
        found.counts["refused by a command"] += count - len(faults)
        found.faults.extend(faults)
    for fault in found.faults:
        sys.stdout.write(f"{fault}\n")
    took = time.monotonic() - clock
    sys.stdout.write(f"{sum(found.counts.values()):,} cases in {took:.0f} s: {dict(found.counts)}\n")
    sys.exit(bool(found.faults))
