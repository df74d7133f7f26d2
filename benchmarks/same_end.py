"""Trainings that are killed and resumed, beside one that is not: do they end with the same bits?

python benchmarks/same_end.py cuda FOLDER            one process is killed
python benchmarks/same_end.py cuda FOLDER queue      one of four jobs on one device is killed
python benchmarks/same_end.py cpu FOLDER ranks       one of two ranks of one training is killed
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from metagen.runs.progress import works_on
from metagen.training.checkpoints import read_checkpoint

PYTHON = [sys.executable, "-c", "from metagen.cli.main import main; main()"]
TRAIN = [*PYTHON, "train"]
RANK = "metagen.cli.rank"
"""In the command line of a rank."""
STEPS = 200
SEED = 1
"""Of the run that is killed."""
PATIENCE = 30.0
"""Seconds after which the others are ended, too, if they wait for a killed rank."""


def main(device: str, work: Path, what: str = "one") -> None:
    work.mkdir(parents=True, exist_ok=True)
    accelerator = "gpu" if device == "cuda" else "cpu"
    if device == "cpu":  # sums over other numbers of threads are rounded differently
        os.environ["OMP_NUM_THREADS"] = "1"
    steps = STEPS if device == "cuda" else 12
    words = [
        "experiment=quickstart", "metric=[negative_elbo]", f"trainer.accelerator={accelerator}",
        "checkpoint_every=0", "task.episodes=2", "task.val_episodes=2", f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
    ]  # fmt: skip
    if what == "ranks":
        words += ["trainer=ddp", "trainer.devices=2", "task.batch=4"]
    whole, killed = work / "whole", work / ("queue/1" if what == "queue" else "killed")
    if what == "queue":
        _sweep([*words, "seed=0,1,2,3", "hydra.launcher.jobs=4", f"hydra.sweep.dir={work}/queue"], killed)
    else:
        command = [*TRAIN, *words, f"seed={SEED}", f"hydra.run.dir={killed}", "--force"]
        _kill(command, killed, RANK if what == "ranks" else "")
        subprocess.run([*TRAIN, "--resume", str(killed)], check=True)
    subprocess.run([*TRAIN, *words, f"seed={SEED}", f"hydra.run.dir={whole}", "--force"], check=True)
    states = [read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"] for run in (whole, killed)]
    unequal = [name for name, x in states[0].items() if not torch.equal(x, states[1][name])]
    print(f"{len(states[0]) - len(unequal)} of {len(states[0])} tensors are the same to the last bit")
    sys.exit(bool(unequal))


def _sweep(words: list[str], killed: Path) -> None:
    """Run four jobs, kill one, and let the sweep be resumed."""
    _kill([*TRAIN, "-m", *words], killed)
    subprocess.run([*TRAIN, "-m", "--resume", str(killed.parent)], check=True)
    done = [(killed.parent / str(job) / "metrics.json").is_file() for job in range(4)]
    print(f"{sum(done)} of 4 jobs have come to their end")
    if not all(done):
        sys.exit(1)


def _kill(command: list[str], folder: Path, child: str = "") -> None:
    """Run a command and kill what trains in ``folder`` without warning as soon as there is a checkpoint.

    With ``child``, the first process of it with this in its command line is killed in its place.
    """
    checkpoint = folder / "checkpoints/last.ckpt"
    checkpoint.unlink(missing_ok=True)
    process = subprocess.Popen(command)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.02)
    trains = works_on(folder)
    found = _children(process.pid, child) if child else [trains.pid] if trains else []
    if process.poll() is not None or not found:
        process.kill()
        process.wait()
        sys.exit(f"nothing to kill: {' '.join(command)} ended before, or has no process {child}")
    os.kill(found[0], signal.SIGKILL)
    try:
        process.wait(PATIENCE if child else None)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    time.sleep(1)  # the others see that it has ended, and end


def _children(parent: int, child: str) -> list[int]:
    """Return the processes started by ``parent`` with ``child`` in their command line (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and child in (folder / "cmdline").read_text().replace("\0", " "):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
