"""The command ``metagen``: train, evaluate, generate. Heavy imports wait until a command runs."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from metagen import __version__
from metagen.cli import commands
from metagen.cli.exit import fail, guard
from metagen.cli.hydra import through_hydra
from metagen.console import Parser, echo
from metagen.errors import nearest

USAGE = """\
metagen: experiments in meta-learning for image generation

  metagen train [overrides]              meta-train, then evaluate on the fixed test episodes
  metagen evaluate RUN [overrides]       evaluate the best checkpoint of a run, in a new folder
  metagen reproduce RUN [overrides]      run it again in a new folder; old and new metrics side by side
  metagen generate RUN --images DIR      new images of your own classes (see generate --help)
  metagen train --resume RUN             go on with a training that was interrupted, exactly
  metagen train -m --resume DIR          finish a sweep that was interrupted
  metagen compare DIR [DIR ...]          means over seeds and paired differences of the runs below these
                                         folders, and a page with --out; with --x KEY metrics over
                                         that override (see compare --help)
  metagen list [DIR ...]                 all runs below these folders, finished or not
  metagen demo RUN [RUN ...]             a page on which you draw a symbol and see new ones

  metagen COMMAND --help                 the options of a command
  metagen --version

Overrides are Hydra's: metagen train experiment=quickstart learner=maml task.shots=1 seed=3
A sweep: metagen train -m learner=scratch,maml seed=0,1,2
"""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command and return the exit code; errors go to stderr in one line."""
    return guard(lambda: _dispatch(list(argv)))


def _dispatch(argv: list[str]) -> int:
    known: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "evaluate": _evaluate,
        "reproduce": _reproduce,
        "generate": commands.generate,
        "compare": commands.compare,
        "list": commands.listing,
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

        return complete(argv, known, lambda argv: through_hydra("train", argv), echo)
    if argv[0] not in known:
        return fail(f"unknown command '{argv[0]}'{nearest(argv[0], known)} (see metagen --help)", 2)
    return known[argv[0]](argv[1:])


def _train(argv: list[str]) -> int:
    sweep, resume = {"-m", "--multirun"} & set(argv), any(word.startswith("--resume") for word in argv)
    if sweep and resume:
        from metagen.sweeps.resume import resumed

        return through_hydra(*resumed(argv))
    return _resume(argv) if resume else through_hydra("train", argv)


def _resume(argv: list[str]) -> int:
    parser = Parser("metagen train --resume", description="Go on with a training that was interrupted.")
    parser.add_argument("--resume", type=Path, required=True, metavar="RUN", help="its folder")
    parser.add_argument("overrides", nargs="*", help="of trainer, such as trainer=gpu")
    args = parser.parse_intermixed_args(argv)
    from metagen.jobs.resume import Resumption

    again = Resumption(args.resume, args.overrides)
    if again.done:
        echo(f"{args.resume} has come to its end: nothing to do")
        return 0
    return through_hydra("train", again.argv, again.prepare)


def _evaluate(argv: list[str]) -> int:
    if argv and argv[0] in ("-h", "--help"):
        echo(
            "metagen evaluate RUN [overrides]\n\n  RUN  a run's folder; its best checkpoint is evaluated anew"
        )
        return 0
    if not argv or argv[0].startswith("-"):
        return fail("evaluate needs a run's folder: metagen evaluate outputs/DATE/TIME", 2)
    from metagen.config.overrides import merged
    from metagen.runs.reopen import saved_overrides

    saved, checkpoint = saved_overrides(argv[0])
    return through_hydra("evaluate", merged(saved, [f"checkpoint='{checkpoint}'", *argv[1:]]))


def _reproduce(argv: list[str]) -> int:
    if argv and argv[0] in ("-h", "--help"):
        echo(
            "metagen reproduce RUN [overrides]\n\n"
            "  RUN  folder of a run or of a sweep's job: trained (or evaluated) anew with the\n"
            "       configuration that was saved there, in a new folder\n\n"
            "Exit code 0: the metrics are equal, or a difference is to be expected; 1: they differ on the\n"
            "same versions and device"
        )
        return 0
    if not argv or argv[0].startswith("-"):
        return fail("reproduce needs a run's folder: metagen reproduce outputs/DATE/TIME", 2)
    from metagen.jobs.reproduce import Reproduction

    again = Reproduction(Path(argv[0]), argv[1:])
    echo(again.before())
    if code := through_hydra(again.task, again.argv, again.prepare):
        return code
    text, equal = again.after()
    echo(text)
    return 0 if equal else 1
