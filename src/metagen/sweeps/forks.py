"""The fork server of a sweep: a process that has imported once what every job needs, and starts them all.

It and the sweep talk over a socket in lines of JSON. The sweep sends ``{"start": NUMBER, "words": ...,
"environment": ..., "folder": ..., "log": ...}`` and ``{"stop": NUMBER, "signal": ...}``; the server sends
``{"ready": true}`` when it has imported all and ``{"ended": NUMBER, "code": ...}`` when a job has come to its
end. A job leads a session of its own, as one that is started anew does; see :mod:`metagen.cli.fork_server`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from metagen.sweeps.children import Child, Command, Spawned
from metagen.variables import PARENT

JOB = (sys.executable, "-P", "-m", "metagen.cli.job")
"""How the command line of a job begins that is started anew."""
SERVER = (sys.executable, "-P", "-m", "metagen.cli.fork_server")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""A library that starts threads where it is imported would start none: they do not survive a fork."""
POLL = 0.05
"""Seconds between two looks at a process."""
GRACE = 10.0
"""Seconds that a server gets to end by itself."""


class ForkServer:
    """Starts jobs; its process is started with the first one, and again where it was killed.

    Args:
        inherit: descriptors that the jobs inherit.
    """

    def __init__(self, inherit: Sequence[int] = ()) -> None:
        self.inherit = inherit
        self._line: _Line | None = None
        self._count = 0

    def __call__(self, command: Command) -> Child:
        """Start a process: a job of ours by the server, and what is none as it is."""
        if tuple(command.words[: len(JOB)]) != JOB:
            return Spawned(command, self.inherit)
        if self._line is None or self._line.broken():
            self.close()
            self._line = _Line(self.inherit)
        self._count += 1
        own = {**command._asdict(), "words": command.words[len(JOB) :], "log": str(command.log.absolute())}
        self._line.send({"start": self._count, **own})
        return Forked(self._line, self._count)

    def close(self) -> None:
        """End the server, and whatever it still runs."""
        if self._line is not None:
            self._line.close()
        self._line = None


class Forked:
    """A job that the server runs under a number; one whose server was killed counts as killed with it."""

    def __init__(self, line: "_Line", number: int) -> None:
        self._line, self._number = line, number

    def poll(self) -> int | None:
        """See :class:`metagen.sweeps.children.Child`."""
        broken = self._line.broken()
        return self._line.ended.get(self._number, -signal.SIGKILL if broken else None)

    def wait(self) -> int:
        """See :class:`metagen.sweeps.children.Child`."""
        while (code := self.poll()) is None:
            time.sleep(POLL)
        return code

    def stop(self, number: int) -> None:
        """See :class:`metagen.sweeps.children.Child`."""
        if number == signal.SIGKILL and not self._line.ready():
            self._line.kill()
        self._line.send({"stop": self._number, "signal": int(number)})


class _Line:
    """A server's process and the line to it."""

    def __init__(self, inherit: Sequence[int]) -> None:
        self._socket, theirs = socket.socketpair()
        self.ended: dict[int, int] = {}
        self._ready, self._broken, self._rest = False, False, b""
        with theirs:
            self._process = subprocess.Popen(
                [*SERVER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD, PARENT: str(os.getpid())},
                start_new_session=True,
                pass_fds=[*inherit, theirs.fileno()],
            )

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a server that has ended gets none."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._broken = True

    def ready(self) -> bool:
        """Return whether the server has imported all; until then it has no jobs, and hears nothing."""
        self.broken()
        return self._ready

    def kill(self) -> None:
        """End the server at once."""
        self._process.kill()
        self._broken = True

    def broken(self) -> bool:
        """Take in what has come, and return whether the server has ended."""
        while not self._broken:
            try:
                data = self._socket.recv(2**16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._broken = not data
            *lines, self._rest = (self._rest + data).split(b"\n")
            for message in map(json.loads, lines):
                self._ready |= "ready" in message
                if "ended" in message:
                    self.ended[message["ended"]] = message["code"]
        return self._broken

    def close(self) -> None:
        """End the server, and what it runs."""
        if not self.ready():
            self.kill()
        self._socket.close()
        self._broken = True
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
