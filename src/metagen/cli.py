"""The command ``metagen``: train, evaluate, generate. Heavy imports wait until a command runs."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from metagen import __version__
from metagen.errors import MetagenError, TrainingInterruptedError, UsageError, nearest

USAGE = """\
metagen: experiments in meta-learning for image generation

  metagen train [overrides]              meta-train, then evaluate on the fixed test episodes
  metagen evaluate RUN [overrides]       evaluate the best checkpoint of a run, in a new folder
  metagen generate RUN --images DIR      new images of your own classes (see generate --help)
  metagen compare DIR [DIR ...]          one table of the runs below these folders; with --x KEY
                                         metrics over that override (see compare --help)

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
    try:
        return _dispatch(list(argv))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
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
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "evaluate": _evaluate,
        "generate": _generate,
        "compare": _compare,
    }
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"metagen {__version__}\n")
        return 0
    if argv[0] not in commands:
        return _fail(f"unknown command '{argv[0]}'{nearest(argv[0], commands)} (see metagen --help)", 2)
    return commands[argv[0]](argv[1:])


def conf_dir() -> Path:
    """Return the folder of the configuration: packaged in a wheel, else the repository's."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parents[1] / "conf"


def echo(text: str) -> None:
    """Show a result to the user."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def _hydra(task: str, argv: list[str]) -> int:
    """Hand ``argv`` to Hydra, which composes and makes the run's folder, and do ``task`` in it.

    A job of a sweep that fails costs that job only; the exit code then tells that one did.
    """
    import hydra

    codes: list[int] = []

    def job(cfg: Any) -> float | None:
        from metagen import train
        from metagen.runtime import guarded

        try:
            with guarded():
                return getattr(train, task)(cfg, echo)
        except TrainingInterruptedError as error:
            # Hydra lets a SystemExit pass and so ends a sweep; other errors it would print itself.
            raise SystemExit(_report(error)) from None
        except Exception as error:
            codes.append(_report(error))
            return None

    # Hydra prints errors over many lines and exits; told to raise them instead, we explain in one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["metagen", *argv]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()
    return max(codes, default=0)


def _train(argv: list[str]) -> int:
    return _hydra("train", argv)


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
    return _hydra("evaluate", merged(saved, [f"checkpoint='{checkpoint}'", *argv[1:]]))


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def _generate(argv: list[str]) -> int:
    parser = _Parser("metagen generate", description="New images of your own classes.")
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--images", type=Path, required=True, help="one folder per class, K images in each")
    parser.add_argument("--out", type=Path, default=Path("generated"), help="new folder (default: generated)")
    parser.add_argument("--n", type=int, default=64, help="new images a class (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("overrides", nargs="*", help="such as learner.test_steps=20")
    args = parser.parse_intermixed_args(argv)
    from metagen.generate import generate

    echo(generate(args.run, args.images, args.out, args.n, args.seed, args.overrides))
    return 0


def _compare(argv: list[str]) -> int:
    parser = _Parser("metagen compare", description="One table of several runs, or metrics over an override.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders with runs below them")
    parser.add_argument("--by", default=None, help="overrides to label the rows by, such as learner,seed")
    parser.add_argument(
        "--x", default=None, help="average over seeds, over an override such as task.train_count"
    )
    parser.add_argument("--metric", default=None, help="with --x: which metrics, such as negative_elbo")
    parser.add_argument("--plot", type=Path, default=None, help="with --x: also draw it in this PNG file")
    parser.add_argument("--markdown", type=Path, default=None, help="also write the table to this file")
    args = parser.parse_args(argv)
    if args.x is None and (args.plot or args.metric):
        parser.error("--plot and --metric need --x KEY, an override that is a number")
    if args.x is not None and args.by:
        parser.error("--by labels the rows of the table without --x: leave one of them out")
    if args.x is not None:
        from metagen.curve import curve

        metrics = args.metric.split(",") if args.metric else None
        echo(curve(args.folders, args.x, metrics, args.plot, args.markdown))
        return 0
    from metagen.compare import compare

    echo(compare(args.folders, args.by.split(",") if args.by else None, args.markdown))
    return 0
