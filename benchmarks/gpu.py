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
SLOWER = 4
"""Times as long may a small step take on a CPU, which others may be using, too."""
EXPERIMENTS = ("omniglot_nll", "omniglot_samples", "omniglot_to_mnist", "omniglot_classify", "icons_color")


class Step(NamedTuple):
    """One thing to show.

    name:    of its row, and of its log.
    limit:   seconds after which it is ended.
    command: words after the Python interpreter; ``TIME`` is the time of a training that ends in time.
    shares:  whether what is left of all the time is shared among the steps of this kind still to come.
    """

    name: str
    limit: float
    command: list[str]
    shares: bool = False

    def at(self, seconds: float) -> list[str]:
        """Return the command for a limit: two thirds are for the training, the rest for judge and metrics."""
        training = max(5, int(2 / 3 * seconds))
        shown = f"00:{training // 3600:02}:{training // 60 % 60:02}:{training % 60:02}"
        return [word.replace("TIME", shown) for word in self.command]


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
    finished = {row["step"] for row in done if row["code"] == 0}
    ahead = [step for step in steps(args, device) if step.name not in finished]
    for number, step in enumerate(ahead):
        left = end - time.monotonic()
        sharing = sum(one.shares for one in ahead[number:]) if step.shares else 1
        limit = min(step.limit, left / sharing)
        row = _run(step, limit, args.work) if left > 0 else _row(step, None, 0.0, "no time left")
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
            yield step._replace(limit=SLOWER * step.limit) if args.quick else step


def _all(args: argparse.Namespace, device: str) -> Iterator[Step]:
    quick = args.quick
    small = ["--quick"] if quick else []

    def script(name: str, limit: float, file: str, *words: str) -> Step:
        return Step(name, limit, [f"benchmarks/{file}.py", *words])

    def of_tasks(tasks: int, net: str, limit: float) -> Step:
        named = f"gpu-{args.name}-step-{tasks}-{net.split(',')[0]}"
        own = [*small, "--rounds", "1"] if quick else ["--device-only"]
        words = ["--only", net, "--tasks", str(tasks), "--name", named, *own, "--results", str(args.results)]
        return script(f"step of {tasks} tasks, {net}", limit, "run", *words)

    yield script("waits of a step", 90, "waits", device, *small)
    if quick:
        yield of_tasks(2, "strided, 5-way 1-shot, second", 90)
    else:
        yield of_tasks(32, "strided, 5-way 1-shot", 90)
        yield of_tasks(32, "VAE, K", 120)
    yield script("context transformer", 120, "transformer", device, *small)
    yield script("JAX", 120, "jax_step", device, *small)
    for tasks in () if quick else (1, 8, 256):
        yield of_tasks(tasks, "strided, 5-way 1-shot, second", 60)
    if not quick:
        slow = of_tasks(16, "strided, 5-way 1-shot, second", 120)
        yield slow._replace(name="compiled step", command=[*slow.command, "--compiled"])
    yield script("samples a second", 120, "generation", device, *small)
    yield script("resume on the device", 120, "same_end", device, str(args.work / "one"))
    yield script("four jobs on one device", 180, "same_end", device, str(args.work / "four"), "queue")
    several = device == "cuda" and torch.cuda.device_count() > 1
    ranks = device if several else "cpu"  # two ranks do not share a card
    yield script(f"two ranks, {ranks}", 120, "same_end", ranks, str(args.work / "ranks"), "ranks")
    for name in ("quickstart",) if quick else EXPERIMENTS:
        yield _full(name, args.work / name, device, quick)


def _full(name: str, folder: Path, device: str, quick: bool) -> Step:
    """Return the training and the test of an experiment in full size, at most ten minutes of both."""
    few = ["trainer.max_steps=2", "trainer.val_check_interval=2", "task.episodes=2", "task.val_episodes=2"]
    few += ["judge.epochs=1", "judge.min_steps=1", "samples=8"]
    size = few if quick else ["size=gpu", "trainer.max_time=TIME", "task.episodes=20"]
    words = [f"experiment={name}", f"trainer.accelerator={_lightning(device)}", f"hydra.run.dir={folder}"]
    train = ["-c", "from metagen.cli.main import main; main()", "train"]
    return Step(f"full size: {name}", 600, [*train, *words, *size, "--force"], shares=True)


def _lightning(device: str) -> str:
    return "gpu" if device == "cuda" else "cpu"


def _run(step: Step, limit: float, work: Path) -> dict[str, Any]:
    """Run a step, end it at its limit, and return its row; its output lies in a log beside the runs."""
    log, start = work / f"{step.name.replace(' ', '_').replace(',', '')}.log", time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, *step.at(limit)], cwd=ROOT, stdout=out, stderr=out)
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
