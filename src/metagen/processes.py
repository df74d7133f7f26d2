"""Processes of this machine, each told from a later one of the same number."""

import os
import platform
import re
from functools import cache
from pathlib import Path


@cache
def place() -> str:
    """Return a name for this machine, and, where it has several, for the space of its process numbers."""
    try:
        space = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        space = "0"
    return re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:40] + "-" + space


def born(pid: int) -> int | None:
    """Return when a process was born, in ticks, by which it is told from a later one of its number.

    0 where the system does not tell, None where there is no such process.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except (OSError, ValueError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # it is another user's
    return 0
