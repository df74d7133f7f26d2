"""The check of what Hydra would do around a job and a run does not."""

from omegaconf import DictConfig

from metagen.config.overrides import key_of
from metagen.errors import UsageError

OF_A_SWEEP = ("hydra.sweep.", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher")
"""Keys of Hydra that only a sweep reads."""


def check_around(whole: DictConfig) -> None:
    """Refuse keys of Hydra that a run would not heed.

    Args:
        whole: the configuration with its node ``hydra``.

    Raises:
        UsageError: such a key is set.
    """
    node = whole.hydra
    for word in node.overrides.hydra:
        if key_of(word).startswith(OF_A_SWEEP) or word.lstrip("+") == "hydra.mode=MULTIRUN":
            raise UsageError(f"{word} is for a sweep: add -m, or leave it out")
    if node.get("callbacks"):
        raise UsageError("hydra.callbacks are not called by metagen: leave them out")
    if node.job.get("chdir"):
        raise UsageError("hydra.job.chdir=true: a run keeps the working directory; leave it out")
    if node.job.get("env_set"):
        raise UsageError("hydra.job.env_set: set variables in the shell; leave it out")
    if node.get("output_subdir") != ".hydra":
        raise UsageError("hydra.output_subdir: a run is described in its folder's .hydra; leave it out")
