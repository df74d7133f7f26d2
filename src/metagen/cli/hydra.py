"""The hand-over of a command line to Hydra."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from metagen.cli.exit import report
from metagen.config.tree import conf_dir
from metagen.console import echo
from metagen.errors import TrainingInterruptedError, UsageError, nearest
from metagen.training import signals


def through_hydra(task: str, argv: list[str], prepare: Callable[[Any], Any] = lambda cfg: cfg) -> int:
    """Hand ``argv`` to Hydra, which composes and makes the run's folder, and do ``task`` in it.

    What ``prepare`` makes of the composed configuration is what runs.

    A job of a sweep that fails costs that job only; the exit code then tells that one did.
    """
    if {"-h", "--help"} & set(argv):
        from metagen.config.help import overview

        echo(overview([word for word in argv if "=" in word and not word.startswith("-")]))
        return 0
    _check_flags(argv)
    import hydra

    from metagen.config.foreign import check_command_line

    check_command_line(argv)
    from metagen.sweeps.task import Task

    codes: list[int] = []

    def job(cfg: Any) -> float | None:
        from metagen.jobs import train
        from metagen.jobs.process import quiet
        from metagen.runs.run import guarded

        quiet()
        try:
            with signals.caught(), guarded():
                return getattr(train, task)(prepare(cfg), echo)
        except TrainingInterruptedError as error:
            # Hydra lets a SystemExit pass and so ends a sweep; other errors it would print itself.
            raise SystemExit(report(error)) from None
        except Exception as error:
            codes.append(report(error))
            return None

    # Hydra prints errors over many lines and exits; told to raise them instead, we explain in one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["metagen", *argv]
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    named = Task(task, job, codes)
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(named)()
    except Exception:
        named.leave_nothing()
        raise
    return max(codes, default=0)


FLAGS = (
    "-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package", "-r", "--run",
    "-m", "--multirun", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-cd",
    "--config-dir", "--experimental-rerun", "-i", "--info", "--resume",
)  # fmt: skip
"""Options of ``metagen train``; all but the last one are Hydra's."""


def _check_flags(argv: Sequence[str]) -> None:
    """Refuse an option that there is not, in one line."""
    for word in argv:
        if word.startswith("-") and word.partition("=")[0] not in FLAGS:
            raise UsageError(f"no option '{word}'{nearest(word, FLAGS)} (see metagen train --help)")
