"""The process of one rank of a training: ``python -m metagen.cli.rank``."""

import os
import sys
import threading

from metagen.cli.exit import exit_code
from metagen.jobs.process import quiet
from metagen.runs.run import Run


def main() -> int:
    """Join a training as one of its ranks; the configuration comes through the standard input."""
    return exit_code(_join)


def _join() -> int:
    run = Run.from_json(sys.stdin.readline())
    from metagen.jobs.train import train  # takes seconds: after what may fail at once

    threading.Thread(target=_follow, daemon=True).start()
    quiet()
    train(run, lambda text: None)
    return 0


def _follow() -> None:
    """End with rank 0, however that ended: it holds the other end of the standard input."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
