"""The settings of a run, and those by which it differs from others."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metagen.config import renamed
from metagen.config.overrides import by_key

Record = dict[str, Any]


def overrides_of(run: Record) -> dict[str, str]:
    """Return the overrides of a run by key, in today's names."""
    return by_key(renamed.overrides(list(map(str, run["overrides"]))))


def settings_of(run: Record) -> dict[str, str]:
    """Return what a run was told and, as far as its record knows, what held by default."""
    task = {f"task.{key}": text(value) for key, value in run["task"].items()}
    # What a choice is composed of says nothing that it does not say itself.
    chosen = {group: text(choice) for group, choice in run.get("choices", {}).items() if "/" not in group}
    settings = {**task, **chosen, **overrides_of(run)}
    if run["training"].get("checkpoint"):
        # What was evaluated anew is known by the overrides that it was trained with.
        settings.pop("checkpoint", None)
    return settings


def text(value: Any) -> str:
    """Return a value as the command line spells it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def differing(labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all runs, in the order of their appearance."""
    keys = list(dict.fromkeys(key for found in labels for key in found))
    return [key for key in keys if len({found.get(key) for found in labels}) > 1]


def label(keys: Sequence[str], values: Sequence[str | None]) -> str:
    """Return the name of what has these values; a choice such as ``learner=maml`` says itself what it is."""
    words = [
        f"{value or 'default'}"
        if key in ("learner", "model", "experiment")
        else f"{key}={value or 'default'}"
        for key, value in zip(keys, values, strict=True)
    ]
    return ", ".join(words) or "all runs"
