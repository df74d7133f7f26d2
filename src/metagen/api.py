"""metagen from Python: compose, train, evaluate, compare and load, in a script or a notebook.

>>> import metagen
>>> run = metagen.compose(["experiment=quickstart", "learner=maml", "task.shots=1"])
>>> run.config["task"]["shots"], run.choices["learner"]
(1, 'maml')
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metagen.config.overrides import texts
from metagen.errors import MetagenError
from metagen.ranges import NonNegativeInt, fits, refusal
from metagen.report.rows import Rows
from metagen.runs.places import folder_of
from metagen.runs.result import Result
from metagen.runs.run import Run, new_run

Overrides = Sequence[str]


def compose(overrides: Overrides = (), *, config_dir: str | Path | None = None, force: bool = False) -> Run:
    """Return the run that overrides compose; nothing is written, nothing is loaded.

    Args:
        overrides: as on the command line, such as ``["experiment=quickstart", "seed=1"]``;
            ``"hydra.run.dir=FOLDER"`` names the folder.
        config_dir: a folder with configurations of your own.
        force: whether a run that the folder holds is replaced.

    Raises:
        MetagenError: an override cannot be read, or the folder holds a run already.
    """
    words = texts("overrides", overrides)
    return _in_one_line(lambda: new_run(words, config_dir, force=force), words)


def build(run: "Run | Overrides") -> Any:
    """Return what a run is made of (:class:`metagen.jobs.setup.Setup`): data, model and learner, metrics.

    ``setup.data`` is the DataModule and ``setup.experiment`` the LightningModule for a trainer of your own.

    Args:
        run: a composed run, or the overrides of one.

    Raises:
        MetagenError: something does not exist or does not fit.
    """
    from metagen.jobs.build import build as build_setup

    return _in_one_line(lambda: build_setup((run if isinstance(run, Run) else compose(run)).config))


def train(
    run: "Run | Overrides" = (),
    *,
    echo: Callable[[str], Any] | None = None,
    config_dir: str | Path | None = None,
) -> Result:
    """Meta-train, evaluate on the fixed test episodes, and return what was found.

    Args:
        run: a composed run, or the overrides of one.
        echo: takes the lines that the command line would print, such as ``print``.
        config_dir: a folder with configurations of your own.

    Raises:
        MetagenError: bad input, and nothing was written; or a step that fails time and again.
        TrainingInterruptedError: Ctrl-C; ``metagen train --resume FOLDER`` goes on.
    """
    return _job("train", run if isinstance(run, Run) else compose(run, config_dir=config_dir), echo)


def resume(
    folder: str | Path, overrides: Overrides = (), *, echo: Callable[[str], Any] | None = None
) -> Result:
    """Go on with a training that was interrupted; one that has come to its end is returned as it is.

    Args:
        folder: of the run.
        overrides: of ``trainer`` and of what else does not change the recipe.
        echo: see :func:`train`.

    Raises:
        MetagenError: no run's folder, or overrides that would make another run of it.
    """
    from metagen.jobs.resume import resume as reopened

    path, words = folder_of(folder), texts("overrides", overrides)
    run = _in_one_line(lambda: reopened(path, words), words)
    return Result.read(folder) if run is None else _job("train", run, echo)


def evaluate(
    folder: str | Path, overrides: Overrides = (), *, echo: Callable[[str], Any] | None = None
) -> Result:
    """Evaluate a run's best checkpoint anew, in a new folder, and return what was found.

    Args:
        folder: of the run.
        overrides: on top of the run's own, such as ``["learner.test_steps=20"]``.
        echo: see :func:`train`.

    Raises:
        MetagenError: no run, no checkpoint, or overrides that do not fit it.
    """
    from metagen.runs.reopen import evaluation_of

    path, words = folder_of(folder), texts("overrides", overrides)
    return _job("evaluate", _in_one_line(lambda: evaluation_of(path, words), words), echo)


class Compared:
    """Several runs set against each other.

    Attributes:
        scores: a row for each group of runs: the mean of every metric, and its 95 % half-width.
        differences: a row for each paired difference.
        notes: what was left out, and why.
    """

    def __init__(self, found: Any) -> None:
        tables = {table.title: Rows.flat(table.rows) for table in found.tables}
        self.tables: dict[str, Rows] = tables
        self.scores = tables.get("Scores", Rows())
        self.differences = next((rows for title, rows in tables.items() if "ifferences" in title), Rows())
        self.notes = [*map(str, found.left), *found.notes]

    def _repr_html_(self) -> str:
        """Return the tables as a notebook shows them."""
        return "".join(f"<h4>{title}</h4>{rows._repr_html_()}" for title, rows in self.tables.items())


def compare(
    *folders: str | Path,
    by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    against: Sequence[str] | None = None,
    within: Sequence[str] = (),
    budget: int | None = None,
    budgets: bool = False,
) -> Compared:
    """Return means over seeds and paired differences of the finished runs below ``folders``.

    Args:
        folders: searched for runs.
        by: keys whose values make a row, such as ``["learner"]``; by default all that differ, but the seed.
        metrics: which, the main one first.
        against: rows that the others are set against; by default scratch and transfer, else the best.
        within: keys, such as ``["data.split"]``, within whose values runs are paired.
        budget: number of adaptation steps.
        budgets: also differences at every measured number of steps up to ``budget``.

    Raises:
        MetagenError: there is no finished run, none can be compared, or an option names what is not there.
    """
    from metagen.comparison.comparison import Options, comparison

    if not folders:
        raise MetagenError("compare: name at least one folder with runs below it")
    for name, given in {"by": by, "metrics": metrics, "against": against, "within": within}.items():
        if given is not None:
            texts(name, given)
    if not fits(budget, NonNegativeInt | None):
        raise refusal("budget", budget, NonNegativeInt | None)
    options = Options(by, metrics, against, within or (), budget, budgets)
    return Compared(comparison([*map(folder_of, folders)], options))


def load(folder: str | Path, overrides: Overrides = (), *, device: str = "cpu") -> Any:
    """Return the model and the learner of a run (:class:`metagen.jobs.trained.Trained`).

    Args:
        folder: of the run.
        overrides: on top of the run's own, such as ``["learner.test_steps=20"]``.
        device: where it computes: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there is one.

    Raises:
        MetagenError: no run, no checkpoint that fits, or no such device.
    """
    from metagen.jobs.trained import Trained

    words = texts("overrides", overrides)
    return _in_one_line(lambda: Trained(folder, words, device), words)


def _job(task: str, run: Run, echo: Callable[[str], Any] | None) -> Result:
    """Do a job here, log to its folder alone, and return its result."""
    from metagen.jobs import train as jobs
    from metagen.jobs.process import quiet
    from metagen.training import signals

    quiet()
    with signals.caught():
        job = {"train": jobs.train, "evaluate": jobs.evaluate}[task]
        _in_one_line(lambda: job(replace(run, log_by_hydra=False), echo or (lambda text: None)))
    return Result.read(run.folder)


def _in_one_line(function: Callable[[], Any], words: Overrides = ()) -> Any:
    """Return ``function()``; errors of Hydra become a MetagenError of one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from metagen.config.error_lines import explain

    try:
        return function()
    except (HydraException, OmegaConfBaseException) as error:
        line = explain(error, words)
        raise MetagenError(line.text if line else str(error)) from error
