"""The threads of a process: how they wait for each other, and how many there are."""

import os

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which a user says how OpenMP's threads wait."""
NUMBER = "OMP_NUM_THREADS"


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user said how; torch must not be imported yet.

    By default they spin. On cores that others use, too, a thread that spins takes the time of the one that
    it waits for: 54 steps of training took 11:48 there, and 60 took 3:03 with threads that sleep.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def keep_to_threads() -> None:
    """Hold a forked process to ``OMP_NUM_THREADS``, which its libraries have read before it was forked."""
    import torch
    from threadpoolctl import threadpool_limits

    text = os.environ.get(NUMBER, "").partition(",")[0].strip()
    if text.isdigit() and int(text) > 0:
        threadpool_limits(int(text))
        torch.set_num_threads(int(text))
