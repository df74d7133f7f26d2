"""What Hydra can only find here; the rest is in :mod:`metagen.launcher`."""

from typing import ClassVar

from metagen.sweeps.local import LocalLauncher
from metagen.sweeps.remote import RemoteLauncher
from metagen.sweeps.resume import UnfinishedJobs
from metagen.sweeps.study import OptunaSearch


class QueueLauncher(LocalLauncher):
    """``hydra/launcher=queue``."""


class RayLauncher(RemoteLauncher):
    """``hydra/launcher=ray``."""

    extra: ClassVar[str] = "ray"
    plugin: ClassVar[str] = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"


class SlurmLauncher(RemoteLauncher):
    """``hydra/launcher=slurm``."""

    extra: ClassVar[str] = "slurm"
    plugin: ClassVar[str] = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


class ResumeSweeper(UnfinishedJobs):
    """``hydra/sweeper=resume``, the sweeper of ``metagen train -m --resume DIR``."""


class OptunaSweeper(OptunaSearch):
    """``hydra/sweeper=optuna``."""
