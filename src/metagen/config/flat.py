"""A configuration as flat values by dotted key."""

from collections.abc import Mapping
from typing import Any

from metagen.config.keys import HYPERPARAMETERS, is_hyperparameter


def hyperparameters(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs are compared by, flat: what was chosen for each group, and the values of a recipe.

    A choice stands under its group's name (``learner``: ``maml``), so that a table of a sweep can be
    sorted and filtered by it.
    """
    chosen = {
        group: choices[group] for group in ("data", "experiment", *HYPERPARAMETERS) if choices.get(group)
    }
    values = {key: value for key, value in flatten(config).items() if is_hyperparameter(key)}
    return {key: str(choice) for key, choice in chosen.items()} | {
        key: value for key, value in values.items() if key not in chosen
    }


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration as flat plain values by dotted key, as TensorBoard takes them."""
    if not isinstance(node, Mapping):
        return {prefix: node if isinstance(node, int | float | bool | str) else str(node)}
    out: dict[str, Any] = {}
    for key, value in node.items():
        out.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return out
