"""The command ``metagen``: train, evaluate, generate. Heavy imports wait until a command runs."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metagen import __version__, commands, signals
from metagen.commands import Parser, echo
from metagen.errors import MetagenError, TrainingInterruptedError, UsageError, nearest

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


def guard(job: Callable[[], int]) -> int:
    """Return the exit code of ``job``; an error goes to stderr in one line."""
    try:
        return job()
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except signals.Stopped as stop:
        return _fail("interrupted", stop.code)
    except BrokenPipeError:
        # The reader of a pipe left: nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    """Print an error in one line and return its exit code; a fault of ours keeps its trace."""
    if isinstance(error, MetagenError):
        return _fail(str(error), error.code)
    from metagen.explain import explain

    line = explain(error)
    if line is None or os.environ.get("METAGEN_DEBUG"):
        traceback.print_exception(error)
        return 1
    return _fail(line.text, line.code)


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"metagen: error: {' '.join(text.split())}\n")
    return code


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
        from metagen.completion import complete

        return complete(argv, known, lambda argv: through_hydra("train", argv), echo)
    if argv[0] not in known:
        return _fail(f"unknown command '{argv[0]}'{nearest(argv[0], known)} (see metagen --help)", 2)
    return known[argv[0]](argv[1:])


def conf_dir() -> Path:
    """Return the folder of the configuration: packaged in a wheel, else the repository's."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parents[1] / "conf"


def through_hydra(task: str, argv: list[str], prepare: Callable[[Any], Any] = lambda cfg: cfg) -> int:
    """Hand ``argv`` to Hydra, which composes and makes the run's folder, and do ``task`` in it.

    What ``prepare`` makes of the composed configuration is what runs.

    A job of a sweep that fails costs that job only; the exit code then tells that one did.
    """
    if {"-h", "--help"} & set(argv):
        from metagen.keys import overview

        echo(overview([word for word in argv if "=" in word and not word.startswith("-")]))
        return 0
    _check_flags(argv)
    import hydra

    from metagen.launcher.task import Task

    codes: list[int] = []

    def job(cfg: Any) -> float | None:
        from metagen import train
        from metagen.runtime import guarded

        try:
            with signals.caught(), guarded():
                return getattr(train, task)(prepare(cfg), echo)
        except TrainingInterruptedError as error:
            # Hydra lets a SystemExit pass and so ends a sweep; other errors it would print itself.
            raise SystemExit(_report(error)) from None
        except Exception as error:
            codes.append(_report(error))
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


def _train(argv: list[str]) -> int:
    sweep, resume = {"-m", "--multirun"} & set(argv), any(word.startswith("--resume") for word in argv)
    if sweep and resume:
        from metagen.launcher.resume import resumed

        return through_hydra(*resumed(argv))
    return _resume(argv) if resume else through_hydra("train", argv)


def _resume(argv: list[str]) -> int:
    parser = Parser("metagen train --resume", description="Go on with a training that was interrupted.")
    parser.add_argument("--resume", type=Path, required=True, metavar="RUN", help="its folder")
    parser.add_argument("overrides", nargs="*", help="of trainer, such as trainer=gpu")
    args = parser.parse_intermixed_args(argv)
    from metagen.resume import Resumption

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
        return _fail("evaluate needs a run's folder: metagen evaluate outputs/DATE/TIME", 2)
    from metagen.runtime import merged, saved_overrides

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
        return _fail("reproduce needs a run's folder: metagen reproduce outputs/DATE/TIME", 2)
    from metagen.reproduce import Reproduction

    again = Reproduction(Path(argv[0]), argv[1:])
    echo(again.before())
    if code := through_hydra(again.task, again.argv, again.prepare):
        return code
    text, equal = again.after()
    echo(text)
    return 0 if equal else 1
