"""Finish a sweep that was interrupted: ``metagen train -m --resume DIR``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from metagen.config.compose import named_folder
from metagen.config.overrides import merged, quoted
from metagen.console import echo
from metagen.errors import UsageError
from metagen.runs.reopen import reopen
from metagen.sweeps.adopt import adopted
from metagen.sweeps.base import SweepLauncher
from metagen.sweeps.table import jobs_table
from metagen.sweeps.task import Task

USAGE = "metagen train -m --resume DIR [hydra.launcher.KEY=VALUE ...]"


def resumed(folder: Path, overrides: Sequence[str]) -> tuple[Task, list[str]]:
    """Return what the jobs of an interrupted sweep do and the command line that finishes it.

    Args:
        folder: of the sweep.
        overrides: of Hydra's launcher and sweeper.

    Raises:
        UsageError: no folder, or overrides that would change what the jobs do.
        MetagenError: the folder is no sweep's.
    """
    for text in overrides:
        if not text.lstrip("+~").startswith(("hydra.launcher", "hydra/launcher", "hydra.sweeper")):
            raise UsageError(f"a resumed sweep keeps its overrides: leave out '{text}' (usage: {USAGE})")
    sweep = adopted(folder)
    hydra = merged(sweep.hydra, overrides)
    kept = [text for text in hydra if not text.lstrip("+~").startswith(("hydra.mode", "hydra.sweep.dir"))]
    adaptive = any(text.startswith("hydra/sweeper=") for text in kept)
    how = sweep.arguments if adaptive else ["hydra/sweeper=resume"]
    run = None if sweep.run is None else Path(sweep.run)
    known = reopen(run).known if run else []
    return Task(sweep.task, run, known), [
        "-m",
        *sweep.flags,
        *kept,
        *how,
        f"hydra.sweep.dir={quoted(str(folder))}",
    ]


class UnfinishedJobs(Sweeper):
    """A sweeper whose jobs are those of the sweep's folder that have not come to their end."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that the sweep had."""
        from hydra.core.plugins import Plugins

        self.root = named_folder(config, "sweep")
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch them."""
        plan = adopted(self.root)
        jobs = plan.unfinished()
        if not isinstance(self.launcher, SweepLauncher):
            raise UsageError("a sweep is resumed by hydra/launcher=queue, ray or slurm")
        if not jobs:
            echo(jobs_table(plan, plan.jobs) + "\nnothing to do: all jobs are done")
            return []
        self.launcher.resume = True
        batch = [[*job.overrides, f"hydra.sweep.subdir={quoted(job.folder)}"] for job in jobs]
        returned: Sequence[JobReturn] = self.launcher.launch(batch, initial_job_idx=0)
        return returned
