"""The command ``metagen``: train, evaluate, generate. Heavy imports wait until a command runs."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metagen import __version__
from metagen.cli import commands
from metagen.cli.exit import exit_code, fail
from metagen.cli.hydra import SHOWS, check_flags, through_hydra
from metagen.cli.threads import let_threads_sleep
from metagen.console import Parser, echo
from metagen.errors import UsageError, nearest
from metagen.sweeps.task import Task
from metagen.training import signals

USAGE = """\
metagen: experiments in meta-learning for image generation

  metagen train [overrides]              meta-train, then evaluate on the fixed test episodes
  metagen evaluate RUN [overrides]       evaluate the best checkpoint of a run, in a new folder
  metagen reproduce RUN [overrides]      run it again in a new folder; old and new metrics side by side
  metagen generate RUN --images DIR      new images of your own classes (see generate --help)
  metagen export RUN --to DIR            weights, configuration and a model card, to hand on
  metagen export RUN --onnx FILE --images DIR
                                         an ONNX file that draws your own classes without metagen
  metagen train --resume RUN             go on with a training that was interrupted, exactly
  metagen train -m --resume DIR          finish a sweep that was interrupted
  metagen compare DIR [DIR ...]          means over seeds and paired differences of the runs below these
                                         folders, and a page with --out; with --x KEY metrics over
                                         that override (see compare --help)
  metagen list [DIR ...]                 all runs below these folders, finished or not
  metagen cache [--clear] [NAME ...]     what is kept of data sets and judges; take it away
  metagen demo RUN [RUN ...]             a page on which you draw a symbol and see new ones

  metagen COMMAND --help                 the options of a command
  metagen --version

Overrides are Hydra's: metagen train experiment=quickstart learner=maml task.shots=1 seed=3
A sweep: metagen train -m learner=scratch,maml seed=0,1,2
"""


OPTIONS = ("--help", "--version")
"""Options of ``metagen`` without a command."""
REPRODUCE = (
    "Train (or evaluate) a run or a sweep's job anew with the configuration that was saved there, in a new "
    "folder. Exit code 0: the metrics are equal, or a difference is to be expected; 1: they differ on "
    "the same versions and device."
)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    let_threads_sleep()
    os.environ.pop("MPLBACKEND", None)  # pictures are drawn without a window; a wrong name stops matplotlib
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # LANG=C has no word for most names
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command and return the exit code; errors go to stderr in one line."""
    return exit_code(lambda: _dispatch(list(argv)))


def _dispatch(argv: list[str]) -> int:
    known: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "evaluate": _evaluate,
        "reproduce": _reproduce,
        "generate": commands.generate,
        "export": commands.export,
        "compare": commands.compare,
        "list": commands.listing,
        "cache": commands.cache,
        "demo": commands.demo,
    }
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"metagen {__version__}\n")
        return 0
    if argv[0] == "-sc":
        from metagen.cli.completion import complete

        return complete(argv, known, lambda argv: through_hydra(Task("train"), argv), echo)
    if argv[0].startswith("-"):
        return fail(f"no option '{argv[0]}'{nearest(argv[0], OPTIONS)} (see metagen --help)", 2)
    if argv[0] not in known:
        return fail(f"unknown command '{argv[0]}'{nearest(argv[0], known)} (see metagen --help)", 2)
    return known[argv[0]](argv[1:])


def do(task: str, run: Any) -> int:
    """Train or evaluate a run in this process and return the exit code.

    Raises:
        MetagenError: the job failed, or a signal ended it.
    """
    from metagen.jobs import train
    from metagen.jobs.process import quiet

    quiet()
    with signals.caught():
        {"train": train.train, "evaluate": train.evaluate}[task](run, echo)
    return 0


def _train(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        from metagen.config.help import overview

        echo(overview([word for word in argv if "=" in word and not word.startswith("-")]))
        return 0
    check_flags(argv)
    if SHOWS & {word.partition("=")[0] for word in argv}:
        return through_hydra(Task("train"), argv)
    parser = _parser("train", "Meta-train, then evaluate.")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with a training that was interrupted"
    )
    args = parser.parse_intermixed_args(argv)
    _check_sweep(args)
    if args.multirun:
        return through_hydra(*_sweep(args), None if args.resume is not None else _most(args))
    if args.resume is not None:
        return _resume(args.resume, args.overrides)
    from metagen.runs.run import new_run

    return do("train", new_run(args.overrides, args.config_dir, args.config_name, args.force))


def _parser(command: str, description: str) -> Parser:
    """Return a parser of the options that commands share which take overrides."""
    parser = Parser(f"metagen {command}", description=description, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", help="Hydra's, such as learner=maml task.shots=1")
    parser.add_argument("-m", "--multirun", action="store_true", help="a sweep")
    parser.add_argument("--force", action="store_true", help="replace the run that hydra.run.dir holds")
    parser.add_argument("--up-to", type=int, metavar="N", help="jobs that a sweep may have (default: 1000)")
    parser.add_argument("-cd", "--config-dir", help="a folder with configurations of your own")
    parser.add_argument("-cn", "--config-name", default="config", help="the primary configuration")
    return parser


def _check_sweep(args: Any) -> None:
    """Refuse options that do not go with a sweep, or only with one.

    Raises:
        UsageError: there is one.
    """
    if args.multirun and args.force:
        raise UsageError("--force replaces a run, never a sweep: name another hydra.sweep.dir")
    if args.up_to is not None and (not args.multirun or args.up_to < 1):
        raise UsageError(f"--up-to {args.up_to}: expected the number of jobs, 1 or more, of a sweep by -m")


def _most(args: Any) -> int:
    """Return how many jobs a new sweep may have."""
    from metagen.sweeps.count import MOST

    return int(args.up_to or MOST)


def _sweep(args: Any) -> tuple[Task, list[str]]:
    """Return what a sweep's jobs do, and Hydra's command line."""
    if args.resume is not None:
        from metagen.sweeps.resume import resumed

        return resumed(args.resume, args.overrides)
    own = ["--config-dir", args.config_dir] if args.config_dir else []
    own += ["--config-name", args.config_name] if args.config_name != "config" else []
    return Task("train"), ["-m", *own, *args.overrides]


def _resume(folder: Path, overrides: list[str]) -> int:
    from metagen.jobs.resume import resume

    run = resume(folder, overrides)
    if run is None:
        echo(f"{folder} has come to its end: nothing to do")
        return 0
    return do("train", run)


def _evaluate(argv: list[str]) -> int:
    args = _of_a_run("evaluate", "Evaluate a run's best checkpoint anew, in a new folder.", argv)
    if args is None:
        return 0
    from metagen.config.overrides import key_of
    from metagen.jobs.placed import placed
    from metagen.runs.reopen import best_checkpoint, evaluation_of, reopen

    _check_sweep(args)
    args.overrides = placed(args.run, args.overrides, args.device)
    if args.multirun:
        best_checkpoint(args.run)
        given = {key_of(text) for text in args.overrides}
        known = [text for text in reopen(args.run).known if key_of(text) not in given]
        words = ["-m", *known, *args.overrides]
        return through_hydra(Task("evaluate", args.run, known), words, _most(args))
    return do("evaluate", evaluation_of(args.run, args.overrides, args.force))


def _reproduce(argv: list[str]) -> int:
    args = _of_a_run("reproduce", REPRODUCE, argv)
    if args is None:
        return 0
    if args.multirun:
        raise UsageError("reproduce runs one run again: leave -m out")
    from metagen.jobs.reproduce import Reproduction

    again = Reproduction(args.run, args.overrides, args.force)
    echo(again.before())
    again.share_threads()
    if code := do(again.task, again.again):
        return code
    text, equal = again.after()
    echo(text)
    return 0 if equal else 1


def _of_a_run(command: str, description: str, argv: list[str]) -> Any:
    """Return the options of a command that takes a run and overrides, or None where it was asked for help."""
    parser = _parser(command, description)
    parser.usage = f"metagen {command} RUN [overrides] [--force]"
    if command == "evaluate":
        parser.usage += " [--device DEVICE]"
        commands.add_device(parser)
    if {"-h", "--help"} & set(argv):
        echo(parser.format_help())
        return None
    check_flags(argv, command, ["--device"] if command == "evaluate" else [])
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"{command} needs a run's folder: metagen {command} outputs/DATE/TIME")
    args = parser.parse_intermixed_args(argv[1:])
    args.run = Path(argv[0])
    return args
