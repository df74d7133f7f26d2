"""The pruner of a study, which the sweep names and the jobs make."""

from collections.abc import Mapping
from typing import Any

from metagen.errors import MetagenError

PRUNER = "pruner"
"""The attribute of a study that holds the pruner's node."""
STARTUP = 4
"""Trials that the median rule never prunes: fewer do not tell what is usual."""


def make_pruner(node: Mapping[str, Any] | None) -> Any:
    """Return a pruner of Optuna; None makes that of the median rule.

    Raises:
        MetagenError: the node names no pruner of Optuna, or one that does not take its arguments.
    """
    import optuna

    from metagen.config.trusted import instantiate  # torch takes a second to import, and help does without

    if node is None:
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
    pruner = instantiate(node, "hydra.sweeper.pruner")
    if not isinstance(pruner, optuna.pruners.BasePruner):
        raise MetagenError(
            f"hydra.sweeper.pruner={node}: expected a node with the class of a pruner of Optuna"
        )
    return pruner
