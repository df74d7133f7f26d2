"""What a job of a sweep costs beside its own work: started anew, and forked from a process that has imported.

The processor time of a whole command over many jobs less that over one, by the number of jobs between, is
what a job costs from the second on. Its own work is what the same command takes in a process that has done it
before.

    python benchmarks/sweep.py                        # four minutes on two cores; --jobs 2 for a look
"""

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import machine, markdown

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("a job", "s of the processor", "beside its own work", "x forked")
TINY = [
    "data=digits", "task.episodes=2", "task.val_episodes=2", "task.batch=2", "trainer.max_steps=2",
    "trainer.val_check_interval=2", "trainer.enable_progress_bar=false", "metric=negative_elbo", "samples=2",
    "model.channels=8", "model.hidden=16",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=6, help="jobs of the longer sweep (default: 6)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        seconds = {"anew": _each(Path(folder, "anew"), args.jobs, False)}
        seconds["forked"] = _each(Path(folder, "forked"), args.jobs, True)
        work = _own_work(Path(folder, "own"))
    rows = table(seconds, work)
    print(markdown(rows, COLUMNS))
    facts = machine("cpu") | {"threads": 1, "jobs": args.jobs}
    (args.results / "sweep.json").write_text(json.dumps({"machine": facts, "sweep": rows}, indent=2) + "\n")


def table(seconds: dict[str, float], work: float) -> list[dict[str, Any]]:
    """Return a row for each way to start a job, and one for its own work."""
    beside = {name: found - work for name, found in seconds.items()}
    rows = [
        {COLUMNS[0]: name, COLUMNS[1]: found, COLUMNS[2]: beside[name], COLUMNS[3]: found / seconds["forked"]}
        for name, found in seconds.items()
    ]
    return [*rows, {COLUMNS[0]: "its own work", COLUMNS[1]: work}]


def _each(folder: Path, jobs: int, fork: bool) -> float:
    """Return the processor seconds of a job from the second on."""
    one, all_ = (_sweep(folder / str(count), count, fork) for count in (1, jobs))
    return (all_ - one) / (jobs - 1)


def _sweep(folder: Path, jobs: int, fork: bool) -> float:
    """Return the processor seconds of a sweep, those of all its processes."""
    before = _children()
    words = ["train", "-m", f"seed=range({jobs})", f"hydra.launcher.fork={fork}", f"hydra.sweep.dir={folder}"]
    program = [sys.executable, "-c", "from metagen.cli.main import main; main()"]
    subprocess.run([*program, *words, "hydra.launcher.jobs=1", *TINY], check=True, stdout=subprocess.DEVNULL)
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _own_work(folder: Path, times: int = 4) -> float:
    """Return the processor seconds of the job in this process, once it has done it before."""
    from metagen.cli.main import run

    seconds = []
    for i in range(times):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            run(["train", f"seed={i}", f"hydra.run.dir={folder}/{i}", *TINY])
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
