"""The device that a command computes on: a GPU where there is one, or what ``--device`` says."""

import torch

from metagen.errors import UsageError

AUTO = "auto"


def device_of(name: str = AUTO) -> torch.device:
    """Return the device of a name: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        UsageError: it is none of these, or torch finds no such GPU.
    """
    name = str(name)  # None or a number from Python is refused below like any other name
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if name != "cpu" and (kind != "cuda" or not (number.isdecimal() or name == "cuda")):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda, or cuda:N")
    if name == "cpu":
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= found:
        here = f"{found} of them; use --device auto" if found else "no GPU here; use --device cpu"
        raise UsageError(f"--device {name}: torch finds {here}, or install a torch that supports yours")
    return torch.device("cuda", int(number or 0))


def in_words(device: torch.device) -> str:
    """Return what a device is, for the user to read: the CPU, or the GPU with its name."""
    return "the CPU" if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})"
