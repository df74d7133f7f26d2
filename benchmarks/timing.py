"""Medians of functions that are timed in turns, the machine they ran on, and the tables of results."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "learn2learn", "higher", "torchopt", "torchmeta")


def in_turns(functions: dict[str, Callable[[], Any]], rounds: int, device: str = "cpu") -> dict[str, float]:
    """Return the median seconds of each function; a noisy neighbour hits all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            if turn:  # the first turn warms caches and compiles
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product, which no network exceeds."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / in_turns({"product": lambda: a @ b}, 5, device)["product"]


def machine(device: str) -> dict[str, Any]:
    """Return what the figures depend on: processor, threads, load, versions, date."""
    facts = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    facts |= {name: found for name in PACKAGES if (found := _version(name))}
    return facts | ({"card": torch.cuda.get_device_name()} if device == "cuda" else {})


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def markdown(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return a table; numbers to three digits, what a row lacks is left empty."""
    cells = [list(columns), [":--"] + ["--:"] * (len(columns) - 1)]
    cells += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 0.1 else f"{value:.3g}"
