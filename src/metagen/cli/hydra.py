"""The hand-over of a command line to Hydra: sweeps, and what it shows of a configuration."""

import os
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence

from metagen.config.tree import conf_dir
from metagen.errors import UsageError, nearest
from metagen.sweeps.task import Task


def through_hydra(task: Task, argv: list[str], most: int | None = None) -> int:
    """Let Hydra run a sweep, or show what it composes, and return the exit code.

    Args:
        task: what the jobs of the sweep do.
        argv: Hydra's command line.
        most: jobs that a new sweep may have; None asks nothing.
    """
    import hydra

    from metagen.cli.completion import check_shell
    from metagen.config.foreign import check_command_line
    from metagen.sweeps.count import check_jobs

    check_shell(argv)
    check_shown(argv)
    check_launcher(argv)
    check_command_line(argv)
    if most is not None:
        check_jobs([word for word in argv if not word.startswith("-") and "=" in word], most)
    # Hydra prints errors over many lines and exits; told to raise them instead, we explain in one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["metagen", *of_every_job(argv)]
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except Exception:
        task.leave_nothing()
        raise
    return max(task.codes, default=0)


def of_every_job(argv: Sequence[str]) -> list[str]:
    """Return the words of a sweep over choices, with keys of those groups left to the jobs.

    Hydra composes the sweep as a whole first, with each group's default, which may not have the keys of the
    choices that are swept. It leaves out what is swept, so such a key becomes a sweep over its one value.
    """
    words = list(argv)
    if not {"-m", "--multirun"} & set(words) or any(w.startswith("hydra/sweeper=") for w in words):
        return words
    plain = {word: word.partition("=") for word in words if re.fullmatch(r"[\w./@]+=.+", word)}
    swept = {key for key, _, value in plain.values() if (conf_dir() / key).is_dir() and "," in value}
    for i, word in enumerate(words):
        key, _, value = plain.get(word, ("", "", ""))
        group, dot, _ = key.partition(".")
        if dot and group != "hydra" and {group, "experiment"} & swept and not _is_sweep(word):
            words[i] = f"{key}=choice({value})"
    return words


def _is_sweep(word: str) -> bool:
    """Return whether an override has several values, or cannot be read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return bool(OverridesParser.create().parse_override(word).is_sweep_override())
    except HydraException:
        return True


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


def check_shown(argv: Sequence[str]) -> None:
    """Refuse what Hydra cannot show, in one line; Hydra itself would print its usage.

    Raises:
        UsageError: an option has a value that is none of its choices, or lacks one.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        parser.parse_known_args(argv)
    except ArgumentError as error:
        raise UsageError(f"{error} (see metagen train --help)") from error


SHOWS = {
    "-c", "--cfg", "--resolve", "-p", "--package", "-i", "--info", "--hydra-help", "-sc",
    "--shell-completion",
}  # fmt: skip
"""Options by which Hydra only shows something."""
FLAGS = (
    "-h", "--help", "-m", "--multirun", "-cn", "--config-name", "-cd", "--config-dir", "--resume", "--force",
    "--up-to", *SHOWS,
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
