"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable

DISTRIBUTION = "metagen-images"
"""What pip installs; the import and the command are ``metagen``, which is another tool's name on PyPI."""


def installing(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class MetagenError(Exception):
    """Bad input: one line that says what was expected, what came, and what to do.

    The command line prints it without a stack trace and exits with ``code``.
    """

    code = 1


class UsageError(MetagenError):
    """A command line that cannot be read."""

    code = 2


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the choice closest to ``word``, or ``""``."""
    match = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


class TrainingInterruptedError(MetagenError):
    """A signal ended a training, after its state was saved, or the evaluation that follows."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(f"interrupted {text}")
        self.code = code


class TrialPrunedError(MetagenError):
    """A trial that its study ended early."""

    code = 4
