"""Where an evaluation computes: the overrides of the trainer for a device."""

from collections.abc import Sequence
from pathlib import Path

from metagen.config.overrides import key_of
from metagen.errors import UsageError
from metagen.functional.device import AUTO, device_of
from metagen.runs.reopen import reopen

PLACES = ("trainer", "trainer.accelerator", "trainer.devices")


def placed(run: Path, overrides: Sequence[str], device: str = AUTO) -> list[str]:
    """Return ``overrides`` with those that put the evaluation of ``run`` on ``device``.

    ``auto`` is a GPU where there is one, else the CPU, and leaves it to the overrides where these say it.

    Raises:
        UsageError: there is no such device, or overrides say another one.
        MetagenError: no run's folder.
    """
    said = [text for text in overrides if key_of(text) in PLACES]
    if said and device != AUTO:
        raise UsageError(f"--device {device} and {said[0]} both say where to compute: leave one of them out")
    found = device_of(device)
    if said:
        return list(overrides)
    wanted = "cpu" if found.type == "cpu" else "gpu"
    saved = reopen(run, start=False).config["trainer"]
    at = [] if saved["accelerator"] == wanted else [f"trainer.accelerator={wanted}"]
    if found.index is not None:
        at.append(f"trainer.devices=[{found.index}]")
    elif at and saved["devices"] != 1 and not saved.get("strategy"):
        at.append("trainer.devices=1")
    return [*overrides, *at]
