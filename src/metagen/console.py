"""What the command line shows, and how it reads options."""

import argparse
import sys
from typing import NoReturn

from metagen.errors import UsageError


def echo(text: str) -> None:
    """Show a result to the user."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


class Parser(argparse.ArgumentParser):
    """An argument parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message} (see {self.prog} --help)")
