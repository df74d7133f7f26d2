"""The base class of our launchers: the plan of a sweep, its table, and what goes back to the sweeper."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metagen.config.compose import check_choices, named_folder, resolved, select
from metagen.config.error_lines import explain
from metagen.config.foreign import check_job
from metagen.config.overrides import key_of
from metagen.console import echo
from metagen.errors import MetagenError, UsageError
from metagen.ranges import PositiveInt, check_node, hints
from metagen.runs.run import SIGNS, SWEEP
from metagen.sweeps.adopt import adopted
from metagen.sweeps.plan import Job, Sweep
from metagen.sweeps.table import jobs_table, record_of
from metagen.sweeps.task import Task

FLAGS = {"command-line": "--config-dir"}
"""Options of the command line that jobs are given, too, by the source of configurations that they add."""


class SweepLauncher(Launcher):
    """Runs every job as a process of its own; subclasses say where.

    A job that fails costs that job only: its return value is None, and the exit code of the whole is 1.

    Attributes:
        resume: whether jobs that the sweep's folder knows go on; otherwise a sweep there is refused.
        quiet: whether to leave out the table at the end.
        study: address of the study that may prune the jobs.
    """

    def __init__(self) -> None:
        self.resume = self.quiet = False
        self.study: str | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has composed for the sweep as a whole."""
        assert isinstance(task_function, Task)
        self.context, self.task, self.config = hydra_context, task_function, config
        self.root = Path(os.path.abspath(named_folder(config, "sweep")))
        check_node(config.hydra.launcher, hints(type(self).__init__), "hydra.launcher")
        check_node(config.hydra.sweeper, {"max_batch_size": PositiveInt | None}, "hydra.sweeper")
        goes_on = str(config.hydra.sweeper._target_).startswith("hydra_plugins.metagen_sweeps.")
        if not goes_on:
            refuse_a_run(self.root)
        task_function.begins(self.root)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run a batch of jobs to their ends.

        Raises:
            MetagenError: the folder holds another sweep, or the devices do not fit the settings.
            SweepInterruptedError: a signal came.
        """
        known = {key_of(text) for text in self.task.known}
        own = [[text for text in one if key_of(text) not in known] for one in job_overrides]
        configs = [self._compose(one, initial_job_idx + i) for i, one in enumerate(own)]
        if initial_job_idx == 0 and not self.resume:
            for number, config in enumerate(configs):
                check_values(config, f"job {number} ({' '.join(own[number])})")
        self.prepare(configs)
        sweep, jobs = self._plan(own, configs, initial_job_idx)
        try:
            self.execute(sweep, jobs, configs)
        finally:
            names = list(dict.fromkeys(name for config in configs for name in config.get("metrics") or ()))
            if not self.quiet:
                echo("\n" + jobs_table(sweep, sweep.jobs if self.resume else jobs, names))
        self.task.codes.extend(1 for job in jobs if record_of(sweep, job).state not in ("done", "pruned"))
        return [_returned(sweep, job, config) for job, config in zip(jobs, configs, strict=True)]

    def prepare(self, configs: Sequence[DictConfig]) -> None:
        """Refuse settings that do not fit, before anything is written."""

    def execute(self, sweep: Sweep, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> None:
        """Run ``jobs``, whose configurations are ``configs``, to their ends."""
        raise NotImplementedError

    def _compose(self, overrides: list[str], number: int) -> DictConfig:
        words = [*self.task.known, *overrides]
        try:
            config = self.context.config_loader.load_sweep_config(self.config, words)
            check_choices(words, config)
        except (HydraException, OmegaConfBaseException) as error:
            # A key that only some choices have: what is known is what this job chose.
            line = explain(error, words)
            raise UsageError(
                f"job {number} ({' '.join(overrides)}): {line.text if line else error}"
            ) from error
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        check_job(config, self.config)
        return config

    def _plan(
        self, job_overrides: Sequence[Sequence[str]], configs: Sequence[DictConfig], first: int
    ) -> tuple[Sweep, list[Job]]:
        """Return the plan in the sweep's folder, with these jobs in it, and the jobs."""
        folders = [_folder(config) for config in configs]
        exists = (self.root / "jobs.json").is_file()
        if self.resume:
            sweep = adopted(self.root)
            sweep.save()  # what the jobs read is what was checked
            known = {job.folder: job for job in sweep.jobs}
            return sweep, [known[folder] for folder in folders]
        if exists and first == 0:
            refuse_a_run(self.root)
        if len(set(folders)) < len(folders):
            raise MetagenError(
                f"hydra.sweep.subdir gives several jobs the folder {folders[0]}: let it name what differs"
            )
        for folder in folders:
            refuse_a_run(self.root / folder)
        jobs = [
            Job(first + i, folder, list(overrides))
            for i, (folder, overrides) in enumerate(zip(folders, job_overrides, strict=True))
        ]
        sweep = (Sweep.load(self.root) if exists else self._new_sweep()).with_jobs(jobs)
        for job in jobs:
            sweep.forget(job)
        sweep.save()
        return sweep, jobs

    def _new_sweep(self) -> Sweep:
        hydra = self.config.hydra
        sources = {source.provider: source.path for source in hydra.runtime.config_sources}
        flags = [word for key, flag in FLAGS.items() if key in sources for word in (flag, sources[key])]
        arguments, own = (OmegaConf.to_container(hydra.overrides[name]) for name in ("task", "hydra"))
        assert isinstance(arguments, list)
        assert isinstance(own, list)
        run = None if self.task.run is None else str(self.task.run.absolute())
        return Sweep(self.root, self.task.name, arguments, own, flags, os.getcwd(), study=self.study, run=run)


def check_values(config: DictConfig, name: str) -> None:
    """Refuse a job whose values are out of their ranges, before the first one starts.

    Raises:
        UsageError: see :func:`metagen.config.schema.check`.
    """
    from metagen.config.schema import check  # imports torch, which a sweep that is only shown can do without

    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    try:
        check(resolved({str(key): value for key, value in plain.items() if key != "hydra"}, config))
    except MetagenError as error:
        raise UsageError(f"{name}: {error}") from error


def refuse_a_run(folder: Path) -> None:
    """Refuse a folder for a new sweep that holds a sweep or a run.

    Raises:
        MetagenError: it does.
    """
    if any((folder / sign).exists() for sign in SWEEP):
        raise MetagenError(
            f"{folder} holds a sweep: finish it by metagen train -m --resume {folder}, "
            "or name another hydra.sweep.dir"
        )
    if sign := next((sign for sign in SIGNS if (folder / sign).exists()), None):
        raise MetagenError(f"{folder} holds a run ({sign}): name another hydra.sweep.dir")


def _folder(config: DictConfig) -> str:
    """Return a job's folder within the sweep's."""
    return str(select(config, "hydra.sweep.subdir"))


def _returned(sweep: Sweep, job: Job, config: DictConfig) -> JobReturn:
    """Return what a sweeper gets: the first metric, or None where the job failed."""
    result = sweep.result(job)
    value: Any = None
    if result is not None:
        value = result["metrics"][next(iter(config.metrics))]["mean"]
    done = JobReturn(
        overrides=job.overrides, cfg=config, working_dir=str(sweep.path(job)), status=JobStatus.COMPLETED
    )
    done.return_value = value
    return done
