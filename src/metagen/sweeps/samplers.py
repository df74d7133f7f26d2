"""The sampler of a study, made anew for every trial."""

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from metagen.errors import MetagenError

STRIDE = 1_000_003
"""Between the seeds of two studies: those of their trials do not meet."""
IN_ORDER = ("GridSampler", "QMCSampler", "BruteForceSampler")
"""Samplers that go through a sequence by the trial's number: they keep one seed."""


def make_sampler(node: Mapping[str, Any] | None, seed: int, number: int, jobs: int) -> Any:
    """Return the sampler of a trial.

    A seed of its own for each trial, since a sampler that is made anew would begin its random numbers anew.

    Args:
        node: its class and arguments; None for TPE.
        seed: of the study.
        number: of the trial.
        jobs: trials that are decided on together.

    Raises:
        MetagenError: the node names no sampler of Optuna, or one that does not take its arguments.
    """
    import optuna

    from metagen.config.trusted import instantiate, resolve  # torch takes a second to import

    own = (seed * STRIDE + number) % 2**32
    if node is None:
        return optuna.samplers.TPESampler(seed=own, n_startup_trials=max(5, jobs))
    target = resolve(node.get("_target_"), "hydra.sweeper.sampler")
    drawn: dict[str, Any] = {}
    if "seed" in inspect.signature(target).parameters and "seed" not in node:
        drawn["seed"] = seed if target.__name__ in IN_ORDER else own
    sampler = instantiate(node, "hydra.sweeper.sampler", **drawn)
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise MetagenError(
            f"hydra.sweeper.sampler={node['_target_']}: expected the class of a sampler of Optuna"
        )
    return sampler


def plain_node(node: Any) -> Any:
    """Return a node of a configuration as plain values; None for None."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def told(study: Any, trial: Any, *values: Any, **state: Any) -> bool:
    """Tell a study how a trial ended; return whether its sampler has nothing left to try, as a whole grid.

    Optuna's samplers say so by stopping a loop of Optuna's own, which a sweep does not run in.
    """
    try:
        study.tell(trial, *values, **state)
    except RuntimeError as error:
        if "Study.stop" not in str(error):
            raise
        return True
    return False
