"""The hand-over of a command line to Hydra: sweeps, and what it shows of a configuration."""

import os
import sys
import warnings
from collections.abc import Sequence

from metagen.config.tree import conf_dir
from metagen.errors import UsageError, nearest
from metagen.sweeps.task import Task


def through_hydra(task: Task, argv: list[str]) -> int:
    """Let Hydra run a sweep, or show what it composes, and return the exit code.

    Args:
        task: what the jobs of the sweep do.
        argv: Hydra's command line.
    """
    import hydra

    from metagen.cli.completion import check_shell
    from metagen.config.foreign import check_command_line

    check_shell(argv)
    check_launcher(argv)
    check_command_line(argv)
    # Hydra prints errors over many lines and exits; told to raise them instead, we explain in one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["metagen", *argv]
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except Exception:
        task.leave_nothing()
        raise
    return max(task.codes, default=0)


LAUNCHERS = {"queue": "this machine", "slurm": "a cluster", "ray": "several machines"}
"""The launchers of a sweep, and where their jobs run."""


def check_launcher(argv: Sequence[str]) -> None:
    """Refuse launchers of others, whose jobs would share a process, or whose results nobody collects.

    Raises:
        UsageError: there is one.
    """
    for word in argv:
        key, _, name = word.partition("=")
        if key.lstrip("+") == "hydra/launcher" and name not in LAUNCHERS and {"-m", "--multirun"} & set(argv):
            listed = ", ".join(f"hydra/launcher={one} ({place})" for one, place in LAUNCHERS.items())
            own = "the jobs of a sweep are processes of their own, with a table at the end"
            raise UsageError(f"{word}: {own}: use {listed}")


SHOWS = {
    "-c", "--cfg", "--resolve", "-p", "--package", "-i", "--info", "--hydra-help", "-sc",
    "--shell-completion",
}  # fmt: skip
"""Options by which Hydra only shows something."""
FLAGS = (
    "-h", "--help", "-m", "--multirun", "-cn", "--config-name", "-cd", "--config-dir", "--resume", "--force",
    *SHOWS,
)  # fmt: skip
"""Options of ``metagen train``."""


def check_flags(argv: Sequence[str], command: str = "train", more: Sequence[str] = ()) -> None:
    """Refuse an option that there is not, in one line; ``command`` has those of train and ``more``.

    Raises:
        UsageError: there is one.
    """
    known = (*FLAGS, *more)
    for word in argv:
        if word.startswith("-") and word.partition("=")[0] not in known:
            raise UsageError(f"no option '{word}'{nearest(word, known)} (see metagen {command} --help)")
