"""The versions, the machine and the commit that a run was made with."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from metagen import __version__

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "pillow")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend."""
    own = {"python": platform.python_version(), "metagen": __version__}
    return own | {name: version(name) for name in PACKAGES}


def machine(device: torch.device) -> dict[str, Any]:
    """Return what rounding depends on beside the versions: the kind of processor and the threads."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"processor": card or processor(), "threads": torch.get_num_threads()}


def processor() -> str:
    """Return the name of the processor, or its family where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of the code, with ``+`` where files differ from it, or None outside of git."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
