"""The commands that need no Hydra: their options, checked, and the call of what does the work."""

from pathlib import Path

from metagen.console import Parser, echo


def add_device(parser: Parser) -> None:
    """Add the option that says where a command computes."""
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)"
    )


def generate(argv: list[str]) -> int:
    """Do ``metagen generate``."""
    parser = Parser("metagen generate", description="New images of your own classes.")
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--images", type=Path, required=True, help="one folder per class, K images in each")
    parser.add_argument("--out", type=Path, default=Path("generated"), help="new folder (default: generated)")
    parser.add_argument("--force", action="store_true", help="write over what an earlier call left in --out")
    parser.add_argument("--n", type=int, default=64, help="new images a class (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    add_device(parser)
    parser.add_argument("overrides", nargs="*", help="such as learner.test_steps=20")
    args = parser.parse_intermixed_args(argv)
    from metagen.jobs import generate as job

    numbers = (args.n, args.seed, args.overrides, args.force, args.device)
    echo(job.generate(args.run, args.images, args.out, *numbers))
    return 0


def export(argv: list[str]) -> int:
    """Do ``metagen export``."""
    parser = Parser(
        "metagen export",
        description="A trained run to hand on: as a folder (--to) of weights, configuration and a model "
        "card, as load, generate, demo, evaluate and the Hugging Face hub take it; or, adapted to your "
        "classes, as an ONNX file (--onnx) that draws them wherever onnxruntime runs.",
    )
    parser.add_argument("run", type=Path, help="folder of a trained run")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--to", type=Path, help="new folder")
    target.add_argument("--onnx", type=Path, metavar="FILE", help="new file, such as mine.onnx")
    parser.add_argument(
        "--images",
        type=Path,
        help="with --onnx: one folder per class, K images in each, as generate takes them",
    )
    parser.add_argument("--seed", type=int, help="with --onnx: of the noise while it adapts (default: 0)")
    parser.add_argument("--float32", action="store_true", help="store weights in 32 bits (default: 16)")
    parser.add_argument("--force", action="store_true", help="write over what an earlier call left there")
    parser.add_argument("overrides", nargs="*", help="with --onnx: such as learner.test_steps=20")
    args = parser.parse_intermixed_args(argv)
    if args.onnx is None:
        if args.images is not None or args.seed is not None or args.overrides:
            parser.error("--images, --seed and overrides go with --onnx FILE, not with --to: leave them out")
        from metagen.jobs import export as job

        echo(job.export(args.run, args.to, not args.float32, args.force))
        return 0
    if args.images is None:
        parser.error("--onnx needs --images DIR, one folder per class: the file draws these classes")
    if args.float32:
        parser.error("--float32 goes with --to: leave it out, an ONNX file has weights of 32 bits")
    from metagen.jobs.export_onnx import export_onnx

    echo(export_onnx(args.run, args.onnx, args.images, args.seed or 0, args.overrides, args.force))
    return 0


def compare(argv: list[str]) -> int:
    """Do ``metagen compare``."""
    parser = Parser(
        "metagen compare",
        description="Tables of several runs: means over seeds, and differences paired on identical test "
        "episodes with 95 % intervals, corrected for their number (Holm); or metrics over a number (--x).",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders with runs below them")
    parser.add_argument(
        "--by", help="overrides whose values make a row, such as learner (default: all that differ, but seed)"
    )
    parser.add_argument("--metric", help="which metrics, the main one first, such as recognised,coverage")
    parser.add_argument(
        "--against",
        action="append",
        metavar="ROW",
        help="row that the others are set against, such as scratch, or best; may be repeated (default: "
        "scratch and transfer, else the best)",
    )
    parser.add_argument(
        "--within", default="", metavar="KEY", help="pair within each of its values, such as data.split"
    )
    parser.add_argument("--budget", type=int, metavar="N", help="after at most N adaptation steps")
    parser.add_argument(
        "--budgets", action="store_true", help="also differences at every measured number of steps up to N"
    )
    parser.add_argument(
        "--out", type=Path, help="also write comparison.html, .csv and .md and pictures to this folder"
    )
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument(
        "--force", action="store_true", help="write over the files of --out, --markdown and --plot"
    )
    parser.add_argument("--x", metavar="KEY", help="over an override, such as task.train_count")
    parser.add_argument("--plot", type=Path, help="with --x: also draw it in this PNG file")
    args = parser.parse_args(argv)
    metrics = args.metric.split(",") if args.metric else None
    by = args.by.split(",") if args.by else None
    if args.x is None and args.plot:
        parser.error("--plot needs --x KEY, an override that is a number; --out FOLDER draws without it")
    if args.x is not None and by:
        parser.error("--by labels the rows of the table without --x: leave one of them out")
    others = (args.against, args.within, args.budgets, args.out, args.budget)
    if args.x is not None and any(value not in (None, "", False) for value in others):
        parser.error("--against, --within, --budget, --budgets and --out do not go with --x: leave them out")
    if args.budget is not None and args.budget < 0:
        parser.error(f"--budget {args.budget}: expected a number of adaptation steps, 0 or more")
    if args.x is not None:
        from metagen.comparison.over_a_number import curve

        echo(curve(args.folders, args.x, metrics, args.plot, args.markdown, args.force))
        return 0
    from metagen.comparison import compare as job

    within = args.within.split(",") if args.within else ()
    options = job.Options(by, metrics, args.against, within, args.budget, args.budgets)
    echo(job.compare(args.folders, options, args.markdown, args.out, args.force))
    return 0


def listing(argv: list[str]) -> int:
    """Do ``metagen list``."""
    parser = Parser("metagen list", description="All runs below folders, finished or not, the newest first.")
    parser.add_argument(
        "folders", type=Path, nargs="*", metavar="DIR", default=[Path("outputs")], help="(default: outputs)"
    )
    args = parser.parse_args(argv)
    from metagen.runs import listing as job

    echo(job.listing(args.folders))
    return 0


def cache(argv: list[str]) -> int:
    """Do ``metagen cache``."""
    parser = Parser(
        "metagen cache", description="What is kept of data sets and judges, so that it is made once."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these data sets or files (default: all)"
    )
    parser.add_argument("--clear", action="store_true", help="remove them; they are made again when needed")
    parser.add_argument("--check", action="store_true", help="read them through and compare their checksums")
    parser.add_argument("--cache", metavar="DIR", help="(default: $METAGEN_CACHE, else ~/.cache/metagen)")
    args = parser.parse_intermixed_args(argv)
    if args.clear and args.check:
        parser.error("--clear and --check do not go together: leave one of them out")
    from metagen.jobs import cache as job

    echo(job.clear(args.cache, args.names) if args.clear else job.listing(args.cache, args.names, args.check))
    return 0


def demo(argv: list[str]) -> int:
    """Do ``metagen demo``."""
    parser = Parser("metagen demo", description="A page on which you draw a symbol and see new images of it.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of generators' runs")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=None, help="(default: the first free one from 7860 on)")
    add_device(parser)
    args = parser.parse_args(argv)
    if args.port is not None and not 0 < args.port < 65536:
        parser.error(f"--port {args.port}: expected a number from 1 to 65535")
    from metagen.demo.serve import serve

    serve(args.runs, args.host, args.port, echo, args.device)
    return 0
