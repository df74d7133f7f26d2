"""What low precision costs and gains: every valid model x learner pair, found by globbing conf.

    python benchmarks/precision.py                   # bf16; on a GPU where there is one
    python benchmarks/precision.py --only conv4 maml --dtype float16 --width 1

One meta-gradient of a few tasks is taken in float32, with the query loss lowered, and with everything
lowered: its cosine to that in float32, and how many times as fast the step is. ``auto`` is what
``autocast=auto`` chooses; the exit code tells whether that keeps a cosine of 0.99 everywhere. On a CPU
without bf16 units the speeds say nothing but that.

Then both are trained from the same start on the same episodes, in float32 and as ``auto`` chooses, and
their loss on new episodes, in float32, is the final metric (``loss float32`` and ``loss auto``, after so
many ``steps``; ``loss before`` is that of the start). Where ``auto`` lowers nothing they are one run.
"""

import argparse
import copy
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from timing import in_turns, machine, markdown
from torch import Tensor

from metagen.config.tree import conf_dir
from metagen.core.episode import Episode
from metagen.errors import MetagenError
from metagen.functional.autocast import LEVELS, LowPrecision, full
from metagen.functional.vectorize import tree_map
from metagen.jobs.build import load_data
from metagen.training.module import Experiment

KEPT = 0.99
STEPS = 2
"""Inner steps at most: a table of all pairs is to be had in minutes."""
COLUMNS = (
    "model",
    "learner",
    "auto",
    "cosine query",
    "cosine all",
    "speed query",
    "speed all",
    "ms float32",
    "steps",
    "loss before",
    "loss float32",
    "loss auto",
    "note",
)
MOST_STEPS, SECONDS = 30, 6.0
"""A training takes as many steps as fit into so many seconds, at most so many."""
NEW = 10_000
"""Number of the first episodes on which the trained ones are judged: none of training's."""


def pairs() -> list[tuple[str, str]]:
    """Return every model x learner; those that do not fit are refused when they are built."""
    groups = [sorted(path.stem for path in (conf_dir() / g).glob("*.yaml")) for g in ("model", "learner")]
    return [(model, learner) for model in groups[0] for learner in groups[1]]


def built(
    model: str, learner: str, width: int, device: str, tasks: int
) -> tuple[Experiment, Callable[[int], Episode]]:
    """Return a pair as an experiment on real digits, its widths divided by ``width``, and batches by number.

    Raises:
        MetagenError: the model and the learner do not fit.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", [f"model={model}", f"learner={learner}"])
        node: Any = OmegaConf.to_container(cfg.model, resolve=True)
        torch.manual_seed(0)
        net, method = instantiate(_narrow(node, width)), instantiate(cfg.learner)
        task = "supervised" if not method.few_shot else net.kind
        sizes = ["task.shots=2", "task.queries=2", f"task.batch={tasks}"] if method.few_shot else []
        cfg = compose("config", [f"task={task}", *sizes])
    if not method.few_shot and net.kind == "generate":
        raise MetagenError("plain training has no generators: use task=generate")
    data = load_data(cfg)
    if not method.few_shot:
        node["ways"] = cfg.task.ways
        net = instantiate(_narrow(node, width))
    for module in method.modules():
        if getattr(module, "steps", 0) > STEPS:
            module.steps = STEPS
    experiment = Experiment(net, method, torch.optim.SGD, classes=len(data.streams.train.classes))

    def batch(number: int) -> Episode:
        return tree_map(lambda leaf: leaf.to(device), data.streams.train.batch(number))

    return experiment.to(device), batch


def _narrow(node: dict[str, Any], width: int) -> dict[str, Any]:
    """Divide every width, an integer of 16 or more, and keep multiples of 4."""
    fixed = ("ways", "size")
    wide = {k: v for k, v in node.items() if type(v) is int and v >= 16 and k not in fixed}
    return node | {k: max(4, v // (4 * width) * 4) for k, v in wide.items()}


def gradient(experiment: Experiment, batch: Episode, precision: LowPrecision) -> Tensor:
    """Return a meta-gradient as one vector."""
    experiment.zero_grad()
    experiment.precision = precision
    with full(experiment.device):
        experiment.meta_loss(batch).backward()
    return torch.cat([p.grad.flatten() for p in experiment.parameters() if p.grad is not None])


def trained(
    experiment: Experiment,
    batch: Callable[[int], Episode],
    how: LowPrecision,
    steps: int,
    judge: LowPrecision,
) -> float:
    """Return the loss on new episodes after training from the present weights, which stay as they are."""
    start = copy.deepcopy(experiment.state_dict())
    optimizer = torch.optim.Adam([p for p in experiment.parameters() if p.requires_grad], 1e-3)
    for number in range(steps):
        torch.manual_seed(number)
        gradient(experiment, batch(number), how)
        torch.nn.utils.clip_grad_norm_(experiment.parameters(), 1.0)
        optimizer.step()
    experiment.precision = judge
    with full(experiment.device):
        losses = [experiment.meta_loss(batch(NEW + number)).item() for number in range(4)]
    experiment.load_state_dict(start)
    return sum(losses) / len(losses)


def final(
    experiment: Experiment, batch: Callable[[int], Episode], how: dict[str, LowPrecision], seconds: float
) -> dict[str, Any]:
    """Return the final metric of a training in float32 and as ``auto`` chooses, and that of the start."""
    steps = max(1, min(MOST_STEPS, int(SECONDS / seconds)))
    run = partial(trained, experiment, batch, judge=how["none"])
    plain, auto = run(how=how["none"], steps=steps), experiment.lowers
    return {
        "steps": steps,
        "loss before": run(how=how["none"], steps=0),
        "loss float32": plain,
        "loss auto": plain if auto == "none" else run(how=how[auto], steps=steps),
    }


def rows(
    chosen: list[str], width: int, device: str, dtype: torch.dtype, rounds: int
) -> Iterator[dict[str, Any]]:
    for model, learner in pairs():
        if chosen and not {model, learner} <= set(chosen) and not {f"{model}+{learner}"} & set(chosen):
            continue
        try:
            experiment, batches = built(model, learner, width, device, 2)
        except MetagenError:
            continue
        if not experiment.learner.meta_trained:
            continue
        found: dict[str, Tensor] = {}
        how = {parts: LowPrecision(parts, dtype, device) for parts in LEVELS}
        take = {parts: partial(_keep, found, parts, experiment, batches(0), how[parts]) for parts in LEVELS}
        row = {"model": model, "learner": learner, "auto": experiment.lowers}
        try:
            seconds = in_turns(take, rounds, device)
        except RuntimeError as error:
            take.pop("all")  # what no learner chooses need not be possible
            row["note"] = f"all: {' '.join(str(error).split())}"[:80]
            seconds = in_turns(take, rounds, device)
        row |= {f"cosine {parts}": _cosine(found[parts], found["none"]) for parts in seconds}
        row |= {f"speed {parts}": seconds["none"] / value for parts, value in seconds.items()}
        row |= {"cosine auto": row[f"cosine {experiment.lowers}"], "ms float32": 1e3 * seconds["none"]}
        yield row | final(experiment, batches, how, seconds["none"])


def _keep(found: dict[str, Tensor], parts: str, *how: Any) -> None:
    found[parts] = gradient(*how)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="a model and a learner, or M+L")
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--width", type=int, default=1 if device == "cuda" else 8, help="divides the models'")
    parser.add_argument("--rounds", type=int, default=20 if device == "cuda" else 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"precision-{device}")
    args = parser.parse_args()
    logging.disable()
    start, found = time.perf_counter(), []
    for row in rows(args.only, args.width, device, getattr(torch, args.dtype), args.rounds):
        found.append(row)
        shown = (row.get(column, "-") for column in COLUMNS)
        print(*(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in shown), flush=True)
    facts = machine(device) | {"dtype": args.dtype, "width": f"1/{args.width}", "rounds": args.rounds}
    facts["seconds"] = round(time.perf_counter() - start)
    args.out.with_suffix(".json").write_text(json.dumps({"machine": facts, "rows": found}, indent=1) + "\n")
    head = ", ".join(f"{key} {value}" for key, value in facts.items())
    args.out.with_suffix(".md").write_text(f"{head}\n\n{markdown(found, COLUMNS)}")
    bad = [f"{row['model']} {row['learner']}" for row in found if not row["cosine auto"] >= KEPT]
    print(
        f"autocast=auto keeps a cosine of {KEPT} in {len(found) - len(bad)} of {len(found)} pairs",
        *bad,
        sep="\n",
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
