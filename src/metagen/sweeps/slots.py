"""Slots for jobs on this machine: places on its devices, or shares of its cores."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from metagen.errors import MetagenError

MEMORY = 2 * 2**30
"""Bytes of memory that a job on a CPU is given at least, where the number of jobs is not given."""
GIVEN = "OMP_NUM_THREADS"
"""The variable by which a user gives every process its number of threads, those of jobs, too."""
THREADS = (GIVEN, "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Slot(NamedTuple):
    """A place for one job at a time.

    devices: ``CUDA_VISIBLE_DEVICES``; None to leave it as it is.
    threads: of the CPU.
    """

    devices: str | None
    threads: int

    def environment(self) -> dict[str, str]:
        """Return the variables that keep a job to its place."""
        env = {name: str(self.threads) for name in THREADS}
        if self.devices is not None:
            # The numbers that nvidia-smi lists are in this order, those of CUDA by default are not.
            env |= {"CUDA_VISIBLE_DEVICES": self.devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return env

    def __str__(self) -> str:
        if self.devices is not None:
            return f"GPU {self.devices}"
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"


def device_slots(devices: Sequence[str], per_device: float, threads: int | None = None) -> list[Slot]:
    """Return the slots on GPUs.

    Args:
        devices: as ``CUDA_VISIBLE_DEVICES`` names them.
        per_device: jobs that share a device; 1/n gives each job n devices.
        threads: of each job; None takes ``OMP_NUM_THREADS``, or shares the cores.

    Raises:
        MetagenError: ``per_device`` is neither n nor 1/n, or there are too few devices for one job.
    """
    check_count("threads", threads)
    threads = threads or given_threads()
    if not (isinstance(per_device, int | float) and per_device > 0 and _divides(per_device)):
        raise MetagenError(f"hydra.launcher.per_device={per_device}: expected n jobs a device, or 1/n")
    shared, each = max(1, round(per_device)), max(1, round(1 / per_device))
    if each > len(devices):
        raise MetagenError(
            f"hydra.launcher.per_device={per_device} gives each job {each} devices of {len(devices)}"
        )
    groups = [",".join(devices[i : i + each]) for i in range(0, len(devices) - each + 1, each)]
    threads = threads or max(1, cores() // (len(groups) * shared))
    # The first job of every device comes before the second one of any.
    return [Slot(group, threads) for _ in range(shared) for group in groups]


def cpu_slots(waiting: int, at_once: int | None = None, threads: int | None = None) -> list[Slot]:
    """Return the slots without a GPU: by default a core for every job, as far as the memory goes.

    Args:
        waiting: number of jobs.
        at_once: how many run at the same time; None to choose it.
        threads: of each job; None takes ``OMP_NUM_THREADS``, or shares the cores.

    Raises:
        MetagenError: a number below 1.
    """
    check_count("jobs", at_once)
    check_count("threads", threads)
    threads = threads or given_threads()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    chosen = max(1, min(cores() // (threads or 1), memory // MEMORY))
    at_once = min(waiting, at_once or chosen)
    return [Slot(None, threads or max(1, cores() // at_once))] * at_once


def given_threads() -> int | None:
    """Return the threads that the user gives every process by ``OMP_NUM_THREADS``; None where not."""
    text = os.environ.get(GIVEN, "").partition(",")[0].strip()  # a list has numbers of nested regions
    return int(text) if text.isdigit() and int(text) > 0 else None


def check_count(name: str, value: int | None) -> None:
    """Refuse a setting that is neither null nor a whole number of 1 or more."""
    if value is not None and not (isinstance(value, int) and value >= 1):
        raise MetagenError(f"hydra.launcher.{name}={value}: expected 1 or more, or null to choose it")


def cores() -> int:
    """Return how many cores this process may use; ``OMP_NUM_THREADS`` does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices() -> list[str]:
    """Return this machine's GPUs by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(number) for number in range(count if listed.returncode == 0 else 0)]


def _divides(share: float) -> bool:
    """Return whether ``share`` is n or 1/n, written with two digits or more."""
    number, tolerance = (share, 0.0) if share >= 1 else (1 / share, 0.05)
    return abs(number - round(number)) <= tolerance
