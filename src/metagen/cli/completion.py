"""Tab completion: Hydra's, which knows no commands, and the commands."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from metagen.errors import UsageError

SHELLS = "bash, zsh or fish"
ASKED = re.compile(r"(install|uninstall|query)=(bash|zsh|fish)")
"""What Hydra completes."""
COMPOSE = ("train", "evaluate", "reproduce")
"""Commands that take overrides."""


def complete(
    argv: list[str], commands: Iterable[str], hydra: Callable[[list[str]], int], echo: Callable[[str], object]
) -> int:
    """Answer a shell that asks for completions of ``COMP_LINE`` up to ``COMP_POINT``.

    Args:
        argv: Hydra's own words, such as ``-sc query=bash``.
        commands: names of all commands.
        hydra: completes a line without a command, as the environment has it.
        echo: takes the suggestions.
    """
    check_shell(argv)
    line = os.environ.get("COMP_LINE", "")
    point = os.environ.get("COMP_POINT", "")
    line = line[: int(point)] if point.isdigit() else line
    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        start = words[1] if len(words) == 2 else ""
        echo(" ".join(name for name in commands if name.startswith(start)))
        return 0
    if words[1] not in COMPOSE:
        return 0
    rest = _overrides(words[2:], line.endswith(" "))
    os.environ["COMP_LINE"] = " ".join([words[0], *rest])
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return hydra(argv)


def _overrides(words: Sequence[str], finished: bool) -> list[str]:
    """Return the words that are overrides, or the start of one; after a space a new word begins."""
    last = [""] if finished or not words else [words[-1]]
    done = words if finished else words[:-1]
    return [*(word for word in done if "=" in word and not word.startswith("-")), *last]


def check_shell(argv: Sequence[str]) -> None:
    """Refuse a request for the completion of a shell that Hydra does not know.

    Raises:
        UsageError: it is one.
    """
    for flag, word in pairwise([*argv, ""]):
        if flag not in ("-sc", "--shell-completion"):
            continue
        if not ASKED.fullmatch(word):
            raise UsageError(f"{flag} {word}: expected install=, uninstall= or query= and {SHELLS}")
        if word.startswith("query") and not {"COMP_LINE", "COMP_POINT"} <= os.environ.keys():
            raise UsageError(
                f"{flag} {word} needs COMP_LINE, which a shell sets: use {flag} install={word[6:]}"
            )
