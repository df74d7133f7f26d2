"""A training that is killed and resumed, and one that is not: do both end with the same bits?"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from metagen.training.checkpoints import read_checkpoint

TRAIN = ["-c", "from metagen.cli.main import main; main()", "train"]
STEPS = 200


def main(device: str, work: Path) -> None:
    accelerator = "gpu" if device == "cuda" else "cpu"
    steps = STEPS if device == "cuda" else 12
    words = [
        "experiment=quickstart", "metric=[negative_elbo]", f"trainer.accelerator={accelerator}",
        "checkpoint_every=0", "task.episodes=2", "task.val_episodes=2", f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
    ]  # fmt: skip
    subprocess.run([sys.executable, *TRAIN, *words, f"hydra.run.dir={work}/whole", "--force"], check=True)
    _killed([*words, f"hydra.run.dir={work}/killed", "--force"], work / "killed/checkpoints/last.ckpt")
    subprocess.run([sys.executable, *TRAIN, "--resume", str(work / "killed")], check=True)
    whole, killed = (
        read_checkpoint(work / name / "checkpoints/last.ckpt")["state_dict"] for name in ("whole", "killed")
    )
    unequal = [name for name, x in whole.items() if not torch.equal(x, killed[name])]
    print(f"{len(whole) - len(unequal)} of {len(whole)} tensors are the same to the last bit")
    sys.exit(bool(unequal))


def _killed(words: list[str], checkpoint: Path) -> None:
    """Train, and kill the process without warning as soon as there is a checkpoint."""
    process = subprocess.Popen([sys.executable, *TRAIN, *words])
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
