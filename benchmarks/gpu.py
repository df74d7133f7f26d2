"""Everything that a GPU has to show, in order of value, each step with a time limit of its own.

make gpu                                   on one card, 25 minutes in all
.venv/bin/python benchmarks/gpu.py --quick   the same path on the CPU with small sizes: shows that all runs
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timing import machine, markdown

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
EXPERIMENTS = ("omniglot_nll", "omniglot_samples", "omniglot_to_mnist", "omniglot_classify", "icons_color")


class Step(NamedTuple):
    """One thing to show.

    name:    of its row, and of its log.
    limit:   seconds after which it is ended.
    command: words after the Python interpreter.
    """

    name: str
    limit: float
    command: list[str]


def main() -> None:
    args = arguments()
    device = "cpu" if args.quick else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU here: --quick runs the same steps on the CPU, with small sizes")
    out = args.results / f"gpu-{args.name}.json"
    done = _earlier(out) if args.resume else []
    args.work.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    facts = machine(device) | ({"driver": _driver()} if device == "cuda" else {})
    for step in steps(args, device):
        if step.name in {row["step"] for row in done if row["code"] == 0}:
            continue
        left = end - time.monotonic()
        row = (
            _run(step, min(step.limit, left), args.work)
            if left > 0
            else _row(step, None, 0.0, "no time left")
        )
        done = [*(one for one in done if one["step"] != step.name), row]
        _write(out, facts, done)
        print(f"{step.name}: {row['said']} ({row['seconds']:.0f} s)", flush=True)
    if any(row["code"] != 0 for row in done):
        sys.exit(f"not all steps came to their end: --resume does the others (see {out.with_suffix('.md')})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="on the CPU, small: shows that all runs")
    parser.add_argument("--only", default="", help="only steps with this text in their name")
    parser.add_argument("--resume", action="store_true", help="leave out what came to its end before")
    parser.add_argument("--minutes", type=float, default=25, help="for all of it (default: 25)")
    parser.add_argument("--name", default="latest", help="of the result files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs/gpu", help="folder of runs and logs")
    return parser.parse_args()


def steps(args: argparse.Namespace, device: str) -> Iterator[Step]:
    """Yield the steps whose names have ``args.only`` in them, the most valuable first."""
    for step in _all(args, device):
        if args.only in step.name:
            yield step


def _all(args: argparse.Namespace, device: str) -> Iterator[Step]:
    here, quick = "benchmarks", args.quick
    for tasks in (2,) if quick else (32, 1, 8, 256):
        for net in ("strided, 5-way 1-shot, second",) if quick else ("strided, 5-way 1-shot", "VAE, K"):
            name = f"gpu-{args.name}-step-{tasks}-{net.split(',')[0]}"
            small = ["--quick", "--rounds", "1"] if quick else ["--device-only"]
            words = [f"{here}/run.py", "--only", net, "--tasks", str(tasks), "--name", name, *small]
            yield Step(f"step of {tasks} tasks, {net}", 180, [*words, "--results", str(args.results)])
    yield Step("samples a second", 150, [f"{here}/generation.py", device, *(["--quick"] if quick else [])])
    yield Step("resume on the device", 120, [f"{here}/same_end.py", device, str(args.work / "same_end")])
    train = ["-c", "from metagen.cli.main import main; main()", "train"]
    small = ["trainer.max_steps=2", "trainer.val_check_interval=2", "task.episodes=2", "task.val_episodes=2"]
    base = ["experiment=quickstart", "metric=[negative_elbo]", f"trainer.accelerator={_lightning(device)}"]
    few = small if quick else ["trainer.max_steps=200", "trainer.val_check_interval=200"]
    yield Step(
        "four jobs on one device", 180,
        [*train, "-m", *base, *few, "seed=0,1,2,3", "hydra.launcher.jobs=4",
         f"hydra.sweep.dir={args.work}/queue"],
    )  # fmt: skip
    ddp = ["trainer=ddp", f"trainer.accelerator={_lightning(device)}", "trainer.devices=2", "task.batch=4"]
    if quick or torch.cuda.device_count() > 1:
        yield Step("two ranks", 120, [*train, *base, *few, *ddp, f"hydra.run.dir={args.work}/ddp", "--force"])
    for name in ("quickstart",) if quick else EXPERIMENTS:
        words = [
            f"experiment={name}",
            f"trainer.accelerator={_lightning(device)}",
            f"hydra.run.dir={args.work}/{name}",
        ]
        size = small if quick else ["size=gpu", "trainer.max_time=00:00:08:00"]
        yield Step(f"full size: {name}", 600, [*train, *words, *size, "--force"])


def _lightning(device: str) -> str:
    return "gpu" if device == "cuda" else "cpu"


def _run(step: Step, limit: float, work: Path) -> dict[str, Any]:
    """Run a step, end it at its limit, and return its row; its output lies in a log beside the runs."""
    log, start = work / f"{step.name.replace(' ', '_').replace(',', '')}.log", time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, *step.command], cwd=ROOT, stdout=out, stderr=out)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.terminate()  # a training writes its checkpoint
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            code = None
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = (lines[-1] if lines else "").strip()[:200] if code is not None else f"ended after {limit:.0f} s"
    return _row(step, code, time.monotonic() - start, said)


def _row(step: Step, code: int | None, seconds: float, said: str) -> dict[str, Any]:
    return {"step": step.name, "code": code, "seconds": seconds, "said": said, "command": step.command}


def _earlier(out: Path) -> list[dict[str, Any]]:
    return list(json.loads(out.read_text())["steps"]) if out.exists() else []


def _write(out: Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write what is there so far, so that nothing is lost when the machine goes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps({"machine": facts, "steps": rows}, indent=1) + "\n")
    os.replace(temporary, out)
    head = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    table = markdown(rows, ("step", "code", "seconds", "said"))
    out.with_suffix(".md").write_text(f"# What a GPU has to show\n\n{head}\n\n{table}")


def _driver() -> str:
    found = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
    )
    return found.stdout.strip()


if __name__ == "__main__":
    main()
