"""The console: what the command line shows, and how it reads options."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from metagen.errors import UsageError, nearest

STEERING = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Characters that move the cursor, change colours, turn the order around or are half of one."""


def printable(text: str, keep: str = "") -> str:
    r"""Return ``text`` with every character that steers a terminal written out, as ``\x1b``.

    Names in a folder that somebody sent must not move the cursor, change colours or hide what stands there.

    >>> printable("run \x1b[2J")
    'run \\x1b[2J'

    Args:
        text: of anybody.
        keep: characters of this kind that stay, such as the end of a line.
    """
    return STEERING.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


class PrintableRecord(logging.LogRecord):
    """A message of the log in which nothing steers the terminal, whatever files and folders it names."""

    def getMessage(self) -> str:  # noqa: N802
        """Return the message."""
        return printable(super().getMessage(), keep="\n\t")


PLAIN = str.maketrans({"─": "-", "±": "+-", "–": "-", "—": "-", "×": "x", "≥": ">=", "≤": "<=", "…": "..."})
"""What stands for the signs of our tables on a terminal that has only ASCII."""


def _encodable(text: str) -> str:
    """Return ``text`` as far as the standard output can show it; names in other scripts are written out."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.translate(PLAIN).encode(encoding, "backslashreplace").decode(encoding)


def echo(text: str) -> None:
    """Show a result to the user; what could steer the terminal is written out."""
    sys.stdout.write(_encodable(printable(text.rstrip("\n"), keep="\n\t")) + "\n")
    sys.stdout.flush()


class Parser(argparse.ArgumentParser):
    """An argument parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Raises:
            UsageError: always.
        """
        message = message.removesuffix(", overrides")  # argparse counts what may be left out, too
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as argparse does, after a look at the names of the options, which it would take for values.

        Raises:
            UsageError: there is no such option, or what argparse finds.
        """
        known = [*self._option_string_actions]
        for word in sys.argv[1:] if args is None else args:
            name = word.partition("=")[0]
            if name == "--":
                break
            if re.fullmatch(r"--[\w-]+", name) and not self._is_option(name):
                raise UsageError(f"no option '{name}'{nearest(name, known)} (see {self.prog} --help)")
        return super().parse_known_args(args, namespace)

    def _is_option(self, name: str) -> bool:
        if self.allow_abbrev:
            return any(option.startswith(name) for option in self._option_string_actions)
        return name in self._option_string_actions
