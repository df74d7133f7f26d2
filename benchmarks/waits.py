"""What the processor waits for in a training step: nothing, if all is well.

One step of each kind of learner: the batch sent as indices and gathered on the device, the meta-loss, its
gradient, the optimizer. On a GPU torch counts every call that waits for it, and the profiler every copy to
it; on the CPU the operations stand in that would wait: ``.item()``, ``nonzero``, masks as indices.

    python benchmarks/waits.py cuda                   # or cpu
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from timing import in_turns, markdown
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from metagen.config.tree import conf_dir
from metagen.data.on_device import Sent
from metagen.jobs.build import load_data
from metagen.training.module import Experiment

COLUMNS = ("learner", "model", "waits", "copies to the device", "ms", "what")
STEPS = (
    ("maml", "conv4"), ("maml", "vae"), ("reptile", "vae"), ("amortized", "vae"),
    ("in_context", "pixel_transformer"), ("chain", "vae"), ("learned_optimizer", "vae"), ("hypernet", "vae"),
)  # fmt: skip
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero")
SMALL = ("task.batch=2", "task.ways=2", "task.shots=2", "task.queries=2")
NARROW = {
    "conv4": ("model.filters=8",),
    "vae": ("model.channels=4", "model.hidden=16"),
    "pixel_transformer": ("model.width=16", "model.layers=1", "model.heads=2", "model.features=8"),
}


class Waiting(TorchDispatchMode):
    """Counts the operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(operation).removeprefix("aten.")
        lists = [x for part in args if isinstance(part, list | tuple) for x in part]
        bools = any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in lists)
        masks = name.startswith("index") and bools
        if masks or name.startswith(WAITING):
            self.found[name] += 1
        return operation(*args, **(kwargs or {}))


def step_of(learner: str, model: str, device: str, small: bool) -> Any:
    """Return a function that takes one training step, as ``metagen train`` does."""
    kind = "classify" if model == "conv4" else "generate"
    words = [
        f"model={model}",
        f"learner={learner}",
        f"task={kind}",
        *((*SMALL, *NARROW[model]) if small else ()),
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", words)
    data = load_data(cfg)
    torch.manual_seed(0)
    method = instantiate(cfg.learner)
    method.steps = min(method.steps, 2 if small else 5)
    experiment = Experiment(
        instantiate(cfg.model), method, partial(torch.optim.Adam, lr=1e-3, fused=True),
        vectorize="vmap", classes=len(data.streams.train.classes),
    )  # fmt: skip
    experiment.to(device)
    optimizer = experiment.configure_optimizers()
    drawn = [data.streams.train.sent(number) for number in range(4)]  # to draw is the processor's work

    def step(number: int = 0) -> None:
        sent: Sent = drawn[number]
        optimizer.zero_grad()
        experiment.meta_loss(sent.to(torch.device(device)), number).backward()
        optimizer.step()

    return step


def rows(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each learner: how often one step waits, and what it copies to the device."""
    for learner, model in STEPS:
        step = step_of(learner, model, device, small)
        step(0)  # constants are made once
        found = waits(step, device)
        row = {"learner": learner, "model": model, "waits": found.total(), "what": ", ".join(sorted(found))}
        if device == "cuda":
            row |= copies(step)
        yield row | {"ms": 1e3 * in_turns({"step": step}, 1 if small else 5, device)["step"]}


def waits(step: Any, device: str) -> Counter[str]:
    """Return what one step waits for, and how often."""
    if device == "cpu":
        with Waiting() as counted:
            step(1)
        return counted.found
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{one.filename}:{one.lineno}" for one in said if "synchroniz" in str(one.message))


def copies(step: Any) -> dict[str, Any]:
    """Return how many copies to the card one step makes, by the profiler, and how many bytes."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step(2)
        torch.cuda.synchronize()
    found = [event for event in profiler.events() if "Memcpy HtoD" in event.name]
    return {"copies to the device": len(found)}


if __name__ == "__main__":
    made = list(rows(sys.argv[1], "--quick" in sys.argv))
    print(markdown(made, COLUMNS))
    waiting = [f"{row['learner']} with {row['model']}" for row in made if row["waits"]]
    print(f"{len(made) - len(waiting)} of {len(made)} steps wait for nothing", *waiting, sep="; ")
    sys.exit(bool(waiting))
