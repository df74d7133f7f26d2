"""A sweep that learns from its jobs: ``hydra/sweeper=optuna``."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from metagen.config.compose import named_folder
from metagen.config.overrides import quoted
from metagen.config.pruners import PRUNER, make_pruner
from metagen.console import echo
from metagen.errors import MetagenError, installing, nearest
from metagen.files import write_text
from metagen.ranges import PositiveInt, Seed, check_node, hints
from metagen.sweeps.adopt import adopted, storage
from metagen.sweeps.base import SweepLauncher
from metagen.sweeps.plan import Sweep
from metagen.sweeps.samplers import make_sampler, plain_node, told
from metagen.sweeps.space import Space, space_of
from metagen.sweeps.table import record_of
from metagen.sweeps.trials import trials_table


class OptunaSearch(Sweeper):
    """Searches by TPE (Bergstra et al., 2011); the study is kept in ``study.db`` in the sweep's folder.

    A study that is there goes on: its unfinished trials first. What is drawn for a trial depends on the seed
    and on the trial's number alone, so that a study that goes on does not repeat the trials that it has.

    Args:
        metric: a metric, or a list for several objectives; None takes the task's first one.
        n_trials: in the end, those of an earlier call among them.
        n_jobs: trials that are decided on together, and run at the same time as far as the launcher allows.
        seed: of the sampler.
        prune: whether trials end early whose validation losses are worse than the pruner allows; for one
            objective only.
        sampler: a node with the class of a sampler of Optuna, and its arguments; None for TPE.
        pruner: a node with the class of a pruner of Optuna, and its arguments; None for the median rule.
        params: search space, override by key, as on the command line.
    """

    def __init__(
        self,
        metric: str | Sequence[str] | None = None,
        n_trials: PositiveInt = 20,
        n_jobs: PositiveInt = 2,
        seed: Seed = 0,
        prune: bool = True,
        params: Mapping[str, Any] | None = None,
        sampler: Mapping[str, Any] | None = None,
        pruner: Mapping[str, Any] | None = None,
    ) -> None:
        self.metric, self.n_trials, self.n_jobs, self.seed = metric, n_trials, n_jobs, seed
        self.params: Mapping[str, Any] = params or {}
        self.exhausted = False
        self.prune, self.sampler, self.pruner = prune, plain_node(sampler), plain_node(pruner)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher.

        Raises:
            MetagenError: Optuna is not installed, or the launcher is none of ours.
        """
        from hydra.core.plugins import Plugins

        check_node(config.hydra.sweeper, hints(type(self).__init__), "hydra.sweeper")
        try:
            import optuna
        except ImportError as error:
            raise MetagenError(f"hydra/sweeper=optuna is not installed: {installing('optuna')}") from error
        optuna.logging.set_verbosity(logging.WARNING)
        self.loader, self.settings = hydra_context.config_loader, config
        self.root = named_folder(config, "sweep")
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if not isinstance(launcher, SweepLauncher):
            raise MetagenError("hydra/sweeper=optuna needs hydra/launcher=queue, ray or slurm")
        self.jobs: SweepLauncher = launcher
        self.jobs.quiet = True

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials until there are enough, and write the best as an experiment file.

        Raises:
            MetagenError: a metric that the task does not have, or a search space that is none.
        """
        names = self._metrics()
        make_sampler(self.sampler, self.seed, 0, self.n_jobs)
        make_pruner(self.pruner)
        parser = OverridesParser.create(config_loader=self.loader)
        given = [f"{key}={value}" for key, value in self.params.items()]
        space = space_of(parser.parse_overrides([*given, *arguments]))
        study = self._study(names)
        self._finish(study, names)
        while (left := self.n_trials - len(study.trials)) > 0 and not self.exhausted:
            trials = [self._ask(study, space) for _ in range(min(self.n_jobs, left))]
            batch = [space.overrides(trial.params) for trial in trials]
            if trials[0].number == 0:
                self.loader.load_sweep_config(self.settings, batch[0])
            self.jobs.launch(batch, initial_job_idx=trials[0].number)
            self._tell(study, [trial.number for trial in trials], names)
        echo(trials_table(study, self.root, space, names, self.loader))
        return study

    def _metrics(self) -> list[str]:
        known = [str(name) for name in self.settings.metrics]
        names = known[:1] if self.metric is None else self.metric
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in known:
                hint = nearest(name, known) or f"; the task has {', '.join(known)}"
                raise MetagenError(f"hydra.sweeper.metric={name}: the task has no such metric{hint}")
        return names

    def _study(self, names: Sequence[str]) -> Any:
        import optuna

        from metagen.config.trusted import instantiate

        better = [instantiate(self.settings.metrics[name], f"metrics.{name}").better for name in names]
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / "multirun.yaml").exists():
            write_text(self.root / "multirun.yaml", OmegaConf.to_yaml(self.settings))
        address = storage(self.root)
        self.jobs.study = address if self.prune and len(names) == 1 else None
        study = optuna.create_study(
            storage=address,
            study_name="metagen",
            load_if_exists=True,
            directions=["maximize" if one == "higher" else "minimize" for one in better],
        )
        study.set_user_attr(PRUNER, self.pruner)
        return study

    def _ask(self, study: Any, space: Space) -> Any:
        """Return the next trial, drawn by its number."""
        study.sampler = make_sampler(self.sampler, self.seed, len(study.trials), self.n_jobs)
        return study.ask(space.searched)

    def _finish(self, study: Any, names: Sequence[str]) -> None:
        """Run the trials again that were interrupted."""
        from optuna.trial import TrialState

        running = {trial.number for trial in study.get_trials(states=[TrialState.RUNNING])}
        if not running:
            return
        plan = adopted(self.root) if (self.root / "jobs.json").is_file() else None
        jobs = [job for job in plan.jobs if job.number in running] if plan else []
        for number in running - {job.number for job in jobs}:
            study.tell(number, state=TrialState.FAIL)
        batch = [[*job.overrides, f"hydra.sweep.subdir={quoted(job.folder)}"] for job in jobs]
        if batch:
            self.jobs.resume = True
            self.jobs.launch(batch, initial_job_idx=0)
            self.jobs.resume = False
            self._tell(study, [job.number for job in jobs], names)

    def _tell(self, study: Any, numbers: Sequence[int], names: Sequence[str]) -> None:
        from optuna.trial import TrialState

        plan = Sweep.load(self.root)
        for job in (job for job in plan.jobs if job.number in numbers):
            metrics = (plan.result(job) or {}).get("metrics", {})
            values = [metrics.get(name, {}).get("mean") for name in names]
            if record_of(plan, job).state == "pruned":
                self.exhausted |= told(study, job.number, state=TrialState.PRUNED)
            elif None in values:
                self.exhausted |= told(study, job.number, state=TrialState.FAIL)
            else:
                self.exhausted |= told(study, job.number, values)
