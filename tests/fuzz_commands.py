"""Try bad values by the commands themselves: ``evaluate``, ``generate`` and sweeps, of a small run."""

import contextlib
import io
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_values import Case, bad_values, nodes
from command_line import draw

from metagen.cli.main import run
from metagen.config.keys import VALUES
from metagen.config.overrides import quoted
from metagen.config.schema import declarations, fits
from metagen.config.trusted import resolve
from metagen.reading import read_yaml

SMALL = (
    "task.episodes=2", "task.val_episodes=2", "task.batch=2", "trainer.enable_progress_bar=false",
    "model.channels=8", "model.hidden=16", "metric=[negative_elbo]", "learner=maml", "samples=2",
    "learner.steps=1", "learner.test_steps=1", "trainer.max_steps=1", "trainer.val_check_interval=1",
)  # fmt: skip
"""A training of a second."""
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "evaluate": lambda word: ["evaluate", "run", word],
    "generate": lambda word: ["generate", "run", "--images", "pictures", "--out", "new", word],
    "evaluate -m": lambda word: ["evaluate", "run", "-m", "seed=0,1", word],
    "train -m": lambda word: ["train", "-m", *SMALL, "seed=0,1", word],
}


def prepare(folder: Path, *overrides: str) -> None:
    """Train a small run and draw pictures to generate from, in ``folder``."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert run(["train", *SMALL, "hydra.run.dir=run", *overrides]) == 0
        draw(folder / "pictures" / "a")


def cases(folder: Path) -> Iterator[Case]:
    """Yield every key of the run with the bad values that do not fit what is declared of it."""
    config: Any = read_yaml(folder / "run" / ".hydra" / "config.yaml")
    declared = dict(VALUES)
    for path, node in nodes({key: node for key, node in config.items() if key != "hydra"}):
        hints = declarations(resolve(node["_target_"], path))
        declared |= {f"{path}.{key}": hints[key] for key in node if key in hints}
    for key, hint in declared.items():
        for value in bad_values(hint):
            if not fits(value, hint) and _can_be_written(value):
                yield Case((), key, value)


def outcome(command: str, case: Case, folder: Path) -> str:
    """Return what is wrong with how a command refuses a value: nothing, or words."""
    before, errors = _files(folder), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
    ):
        code = run(COMMANDS[command](f"{case.key}={_written(case.value)}"))
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    if code != 2 or len(lines) != 1:
        return f"exit code {code} and {len(lines)} lines: {' '.join(lines)[-200:]}"
    if case.key.split(".")[-1] not in lines[0]:
        return f"the key is not named: {lines[0]}"
    left = _files(folder) - before
    return f"left behind: {sorted(left)[:3]}" if left else ""


def run_all(folder: Path, part: int = 0, parts: int = 1, seed: int = 0) -> tuple[int, list[str]]:
    """Try a bad value of every key by every command, another one by each; return how many, and the faults.

    Args:
        folder: of :func:`prepare`.
        part, parts: which of how many parts of the keys.
        seed: of the values that are drawn.
    """
    draw_one, count, faults = random.Random(seed), 0, []
    by_key = itertools.groupby(cases(folder), key=lambda case: case.key)
    for index, (_, some) in enumerate(by_key):
        values = list(some)
        draw_one.shuffle(values)
        if index % parts != part:
            continue
        for command, case in zip(COMMANDS, values, strict=False):
            count += 1
            if fault := outcome(command, case, folder):
                faults.append(f"{command}: {case.key}={case.value!r}: {fault}")
    return count, faults


def _files(folder: Path) -> set[str]:
    return {os.path.join(place, name) for place, _, names in os.walk(folder) for name in names}


def _can_be_written(value: Any) -> bool:
    """Return whether a value of a key can be told from a key that is left as it is, on a command line."""
    return value != {}  # an empty mapping adds nothing to a node


def _written(value: Any) -> str:
    """Return a value as an override spells it."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(one)}" for key, one in value.items()) + "}"
    return str(value) if not isinstance(value, float) or math.isfinite(value) else repr(value)
