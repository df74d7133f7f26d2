"""Sweeps on a cluster: ``hydra/launcher=ray`` and ``hydra/launcher=slurm``, by Hydra's plugins for them."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from metagen.config.compose import job_folder
from metagen.config.overrides import quoted
from metagen.console import echo
from metagen.errors import MetagenError, installing
from metagen.sweeps.base import SweepLauncher
from metagen.sweeps.plan import Job, Sweep
from metagen.sweeps.process import Process
from metagen.sweeps.table import ended_line

NOTICE = 120.0
"""Seconds that an interrupted worker of SLURM's waits to be queued again: SIGTERM comes before that."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """What a cluster's worker does with a job: it runs the process and waits for its end.

    A worker that gets a job again, after a preemption or the loss of a machine, goes on with it.
    """

    root: Path

    def __call__(self, cfg: Any) -> None:
        """Run the job whose folder Hydra has set; its record tells how it went."""
        sweep = Sweep.load(self.root)
        folder = job_folder()
        job = next(job for job in sweep.jobs if sweep.path(job) == folder)
        record = Process(sweep, job).wait()
        echo(ended_line(job, record))
        if record.state == "interrupted" and "SLURM_JOB_ID" in os.environ:
            time.sleep(NOTICE)


@contextmanager
def _isolated() -> Iterator[None]:
    """Let no Python that is started meanwhile import from its working directory, as SLURM's workers would."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        os.environ.update({} if before is None else {"PYTHONSAFEPATH": before})


class RemoteLauncher(SweepLauncher):
    """Hands jobs to another launcher, whose workers see the sweep's folder.

    Args:
        settings: of that launcher.

    Attributes:
        plugin: its class.
        extra: the extra of this package that installs it.
    """

    plugin: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the other launcher.

        Raises:
            MetagenError: it is not installed.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        try:
            module, _, name = self.plugin.rpartition(".")
            other = getattr(import_module(module), name)
        except ImportError as error:
            raise MetagenError(
                f"hydra/launcher={self.extra} is not installed: {installing(self.extra)}"
            ) from error
        self.other: Launcher = other(**self.settings)
        self.other.setup(hydra_context=hydra_context, task_function=Worker(self.root), config=config)

    def execute(self, sweep: Sweep, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> None:
        """Run ``jobs`` on the cluster and wait for them."""
        # A worker may have another working directory, and a resumed job another number.
        place = [f"hydra.sweep.dir={quoted(str(sweep.root))}"]
        batch = [[*job.overrides, *place, f"hydra.sweep.subdir={quoted(job.folder)}"] for job in jobs]
        try:
            with sweep.locked(), _isolated():
                self.other.launch(batch, initial_job_idx=0)
        except MetagenError:
            raise
        except Exception as error:
            # The workers' records tell which jobs are lost.
            log.warning("hydra/launcher=%s: %s", self.extra, error, exc_info=True)
            self._complain(error, sweep, jobs)

    def _complain(self, error: Exception, sweep: Sweep, jobs: Sequence[Job]) -> None:
        """Raise where not even one job was started: then the cluster is to blame."""
        if not any(sweep.record(job) for job in jobs):
            reason = " ".join(str(error).split())[:300]
            raise MetagenError(f"hydra/launcher={self.extra} cannot start a job: {reason}") from error
