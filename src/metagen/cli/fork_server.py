"""The process from which a sweep's jobs are forked: ``python -m metagen.cli.fork_server DESCRIPTOR``.

It imports what jobs import, computes nothing and never touches a GPU: neither the threads of a parallel
region nor a context of CUDA would survive a fork. See :mod:`metagen.sweeps.forks` for what is said over the
socket.
"""

import gc
import json
import os
import pkgutil
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from metagen.cli import job
from metagen.cli.threads import keep_to_threads, let_threads_sleep
from metagen.variables import PARENT

NEEDED = ("metagen.jobs.train", "metagen.jobs.resume")
"""Modules that every job needs."""
USEFUL = ("torch.utils.tensorboard", "matplotlib.pyplot", "google.protobuf", "absl.flags", "fontTools.ttLib")
"""Modules of others that most jobs import late."""
PARTS = ("data", "evaluation", "learners", "metrics", "models")
"""Packages of ours of which a job imports what its configuration names."""
POLL = 0.05
"""Seconds between two looks at the jobs."""


def main() -> int:
    """Serve until the sweep ends; in a forked process, do its job and return its exit code."""
    job.end_with_parent()
    let_threads_sleep()
    gc.disable()  # of what is imported nothing is garbage
    for name in NEEDED:
        import_module(name)
    for name in (*USEFUL, *_parts()):
        with suppress(ImportError):  # a job that needs it says what is missing
            import_module(name)
    gc.collect()
    gc.freeze()  # what is never looked at again is never copied
    gc.enable()
    work = Server(socket.socket(fileno=int(sys.argv[1]))).run()
    return 0 if work is None else work()


def _parts() -> Iterator[str]:
    for package in PARTS:
        path = import_module(f"metagen.{package}").__path__
        yield from (found.name for found in pkgutil.iter_modules(path, f"metagen.{package}."))


class Server:
    """Forks a process for each job that the sweep sends, and tells how it ended.

    Args:
        channel: to the sweep.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel, self._rest = channel, b""
        self.jobs: dict[int, int] = {}  # number of the job -> process id

    def run(self) -> Callable[[], int] | None:
        """Serve; return what a forked process is to do, and None at the end of the sweep."""
        self._tell({"ready": True})
        while True:
            readable = select.select([self.channel], [], [], POLL if self.jobs else None)[0]
            self._collect()
            if not readable:
                continue
            messages = self._heard()
            if messages is None:
                for process in self.jobs.values():
                    os.kill(process, signal.SIGTERM)
                return None
            for message in messages:
                if "stop" in message:
                    self._stop(message["stop"], message["signal"])
                elif (work := self._start(message)) is not None:
                    return work

    def _heard(self) -> list[dict[str, Any]] | None:
        """Return what the sweep has sent, or None where it has gone."""
        data = b""
        with suppress(OSError):
            data = self.channel.recv(2**16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines] if data else None

    def _start(self, message: dict[str, Any]) -> Callable[[], int] | None:
        """Fork; return in the new process what it is to do."""
        server = os.getpid()
        try:
            process = os.fork()
        except OSError as error:
            with open(message["log"], "a", encoding="utf-8") as log:
                log.write(f"metagen: error: no process can be started: {error.strerror}\n")
            self._tell({"ended": message["start"], "code": 1})
            return None
        if process == 0:
            self.channel.close()
            return partial(_do, server, message)
        self.jobs[message["start"]] = process
        return None

    def _stop(self, number: int, signal_: int) -> None:
        """Send a signal to a job; SIGKILL goes to what it has started, too."""
        process = self.jobs.get(number)
        if process is None:
            return
        with suppress(ProcessLookupError):
            if signal_ == signal.SIGKILL:
                os.killpg(process, signal_)  # not yet a group where it has only just been forked
        os.kill(process, signal_)  # not yet collected, so the number is still its own

    def _collect(self) -> None:
        for number, process in list(self.jobs.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del self.jobs[number]
                self._tell({"ended": number, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # the sweep has gone: the next look shows it
            self.channel.sendall(json.dumps(message).encode() + b"\n")


def _do(server: int, message: dict[str, Any]) -> int:
    """Do a job in a process that was forked, as one would that was started anew."""
    os.setsid()
    log = os.open(message["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.environ.clear()
    os.environ.update(message["environment"], **{PARENT: str(server)})
    if message["folder"] is not None:
        os.chdir(message["folder"])
    sys.argv = ["metagen", *message["words"]]
    _renew()
    return job.main()


def _renew() -> None:
    """Take anew what a process takes at its start: its threads and its random numbers."""
    import numpy as np

    keep_to_threads()
    np.random.seed()


if __name__ == "__main__":
    sys.exit(main())
