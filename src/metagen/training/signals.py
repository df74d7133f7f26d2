"""Signals that end a job: between two training steps, or at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
ECHO = 0.5
"""Seconds within which a second Ctrl-C is the first one, passed on by a program around this one."""


class Stopped(BaseException):
    """A signal told the job to stop. It is no Exception: nobody is to take it for one and go on.

    Attributes:
        number: the signal's.
        code: the exit code, as a shell has it: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.code = int(number), 128 + number


class _State:
    """The signals that this process was sent: they reach a process as a whole."""

    caught = deferred = False
    number: int | None = None
    since = 0.0


@contextmanager
def caught() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into :class:`Stopped`; another Ctrl-C ends the process at once.

    A signal that is ignored (as in the background of a shell, under nohup) stays ignored. Outside of the
    main thread nothing changes: Python handles signals there alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    _State.caught, _State.number = True, None
    install()
    try:
        yield
    finally:
        _State.caught, _State.number = False, None
        for number, handler in before.items():
            signal.signal(number, handler)


def install() -> None:
    """Take the signals, or take them back from a library that took them."""
    if _State.caught:
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _hear)


@contextmanager
def deferred() -> Iterator[None]:
    """Only note a signal, so that :func:`check` can stop where the state is whole.

    Raises:
        Stopped: at the end, where a signal was noted and not yet acted on.
    """
    _State.deferred = True
    try:
        yield
        check()
    finally:
        _State.deferred = False


def noted() -> bool:
    """Return whether a signal has come."""
    return _State.number is not None


def check() -> None:
    """Stop if a signal was noted.

    Raises:
        Stopped: it was.
    """
    if _State.number is not None:
        raise Stopped(_State.number)


def behind(error: BaseException | None) -> Stopped | None:
    """Return what stopped the job, where an error is that, or came while it was being handled.

    A signal may come inside a transform of ``torch.func``, where Lightning's way out fails.
    """
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error


def _hear(number: int, frame: FrameType | None) -> None:
    if _State.number is not None:
        # A second SIGTERM is often the first one, sent to a group of processes by several of their parents.
        if number == signal.SIGINT and time.monotonic() - _State.since > ECHO:
            os._exit(128 + number)
        return
    _State.number, _State.since = number, time.monotonic()
    if not _State.deferred:
        raise Stopped(number)
    # Not by sys.stderr, which may be in the middle of a line of its own.
    os.write(2, b"\nmetagen: stopping after this step, its state saved; Ctrl-C (again) stops at once\n")
