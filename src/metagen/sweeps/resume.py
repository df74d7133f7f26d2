"""Finish a sweep that was interrupted: ``metagen train -m --resume DIR``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from metagen.config.overrides import merged
from metagen.console import echo
from metagen.errors import UsageError
from metagen.sweeps.adopt import adopted
from metagen.sweeps.base import SweepLauncher
from metagen.sweeps.process import quoted
from metagen.sweeps.table import jobs_table

USAGE = "metagen train -m --resume DIR [hydra.launcher.KEY=VALUE ...]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (usage: {USAGE})")


def resumed(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the task of an interrupted sweep and the command line that finishes it.

    Raises:
        UsageError: no folder, or overrides that would change what the jobs do.
        MetagenError: the folder is no sweep's.
    """
    parser = _Parser(add_help=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--resume", type=Path, required=True, metavar="DIR")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args(argv)
    for text in args.overrides:
        if not text.lstrip("+~").startswith(("hydra.launcher", "hydra/launcher", "hydra.sweeper")):
            raise UsageError(f"a resumed sweep keeps its overrides: leave out '{text}' (usage: {USAGE})")
    sweep = adopted(args.resume)
    hydra = merged(sweep.hydra, args.overrides)
    kept = [text for text in hydra if not text.lstrip("+~").startswith(("hydra.mode", "hydra.sweep.dir"))]
    adaptive = any(text.startswith("hydra/sweeper=") for text in kept)
    how = sweep.arguments if adaptive else ["hydra/sweeper=resume"]
    return sweep.task, ["-m", *sweep.flags, *kept, *how, f"hydra.sweep.dir={quoted(str(args.resume))}"]


class UnfinishedJobs(Sweeper):
    """A sweeper whose jobs are those of the sweep's folder that have not come to their end."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that the sweep had."""
        from hydra.core.plugins import Plugins

        self.root = Path(str(config.hydra.sweep.dir))
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch them."""
        plan = adopted(self.root)
        jobs = [job for job in plan.jobs if plan.result(job) is None]
        if not isinstance(self.launcher, SweepLauncher):
            raise UsageError("a sweep is resumed by hydra/launcher=queue, ray or slurm")
        if not jobs:
            echo(jobs_table(plan, plan.jobs) + "\nnothing to do: all jobs are done")
            return []
        self.launcher.resume = True
        batch = [[*job.overrides, f"hydra.sweep.subdir={quoted(job.folder)}"] for job in jobs]
        returned: Sequence[JobReturn] = self.launcher.launch(batch, initial_job_idx=0)
        return returned
