"""The process of a job as its sweep sees it: what it is to do, and how it is watched and stopped."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol


class Command(NamedTuple):
    """What a process is to do.

    words:       its command line, the program first.
    environment: all of its variables.
    folder:      its working directory; None for that of this process.
    log:         file to which it appends everything that it prints.
    """

    words: list[str]
    environment: dict[str, str]
    folder: str | None
    log: Path


class Child(Protocol):
    """A process that runs, in a session of its own: Ctrl-C is for the sweep, which passes it on once."""

    def poll(self) -> int | None:
        """Return its exit code, minus the signal that killed it, or None while it runs."""

    def wait(self) -> int:
        """Return its exit code at its end."""

    def stop(self, number: int) -> None:
        """Send it a signal; SIGKILL goes to what it has started, too."""


Starter = Callable[[Command], Child]


class Spawned:
    """A process that is started anew, with all its imports.

    Args:
        command: what it does.
        inherit: descriptors that it inherits.
    """

    def __init__(self, command: Command, inherit: Sequence[int] = ()) -> None:
        with command.log.open("ab") as log:
            self._process = subprocess.Popen(
                command.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=command.environment,
                cwd=command.folder,
                start_new_session=True,
                pass_fds=inherit,
            )

    def poll(self) -> int | None:
        """See :class:`Child`."""
        return self._process.poll()

    def wait(self) -> int:
        """See :class:`Child`."""
        return self._process.wait()

    def stop(self, number: int) -> None:
        """See :class:`Child`."""
        if number == signal.SIGKILL:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
        self._process.send_signal(number)
