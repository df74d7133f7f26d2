"""The process of one job: ``python -m metagen.cli.job train OVERRIDES``."""

import ctypes
import os
import signal
import sys
from contextlib import suppress

from metagen.cli.threads import let_threads_sleep
from metagen.variables import PARENT


def main() -> int:
    """Do a job and return its exit code."""
    end_with_parent()
    let_threads_sleep()
    # SLURM's notice of preemption reaches all processes; the one that started this one acts on it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    from metagen.cli.main import run

    return run(sys.argv[1:])


def end_with_parent() -> None:
    """Ask the system for SIGTERM at the end of the sweep, however that ends (Linux only)."""
    death_signal = 1
    parent = os.environ.pop(PARENT, None)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(death_signal, signal.SIGTERM)
        if parent and os.getppid() != int(parent):
            sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
