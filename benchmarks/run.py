"""Ratios of one run on one machine: the sampler and the training step against plain loops.

make benchmark            prints the table and writes benchmarks/results/MACHINE.{json,md}
"""

import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from metagen import rng
from metagen.cli import conf_dir
from metagen.data.bank import Bank
from metagen.data.sampler import EpisodeSampler
from metagen.episode import Episode, Shots
from metagen.objective import Objective
from metagen.vectorize import loop, vmap

REPEATS = 5
RESULTS = Path(__file__).parent / "results"


def median_seconds(*functions):
    """Time the functions in turns, so that a noisy neighbour hits all of them; medians in seconds."""
    times = [[] for _ in functions]
    for round_ in range(REPEATS + 1):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if round_:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def omniglot_sized_bank():
    images = torch.randint(0, 256, (1200 * 20, 28, 28), dtype=torch.uint8)
    labels = torch.arange(1200).repeat_interleave(20)
    names = tuple(f"{i:04d}" for i in range(1200))
    return Bank("random", images, labels, names, torch.zeros(len(labels), dtype=torch.bool))


def one_at_a_time(bank, tasks, ways=5, shots=1, queries=15):
    """The usual design: Python loops over tasks and classes."""
    batch = []
    for _ in range(tasks):
        classes = torch.randperm(1200)[:ways].tolist()
        rows = [20 * c + torch.randperm(20)[: shots + queries] for c in classes]
        turned = [torch.rot90(bank.images[r], int(torch.randint(4, ())), (1, 2)) for r in rows]
        batch.append(torch.stack(turned).float() / 255)
    return torch.stack(batch)


def row(work, unit, ours, plain, ratio):
    return {"work": work, "unit": unit, "ours": ours, "loop": plain, "ratio": ratio}


def sampler_rows():
    bank = omniglot_sized_bank()
    tasks = 32
    for symmetries in (False, True):
        sampler = EpisodeSampler(bank, bank.names, 5, 1, 15, 0, "train", symmetries)
        ours, plain = median_seconds(
            lambda sampler=sampler: sampler.episodes(torch.arange(tasks)), lambda: one_at_a_time(bank, tasks)
        )
        name = "5-way 1-shot episodes" + (", symmetries" if symmetries else "")
        yield {
            "work": name,
            "unit": "episodes/s",
            "ours": tasks / ours,
            "loop": tasks / plain,
            "ratio": plain / ours,
        }


def step_rows():
    for model, learner, tasks, shots, queries in (
        ("conv4", "maml", 4, 1, 15),
        ("conv4", "fomaml", 4, 1, 15),
        ("vae", "maml", 8, 10, 10),
        ("vae", "fomaml", 8, 10, 10),
        ("vae", "amortized", 8, 5, 5),
    ):
        task = "classify" if model == "conv4" else "generate"
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", [f"model={model}", f"learner={learner}", f"task={task}", "task.ways=5"])
        torch.manual_seed(0)
        net, method = instantiate(cfg.model), instantiate(cfg.learner)
        objective = Objective(net)
        method.bind(objective, 8)
        ways = 5 if model == "conv4" else 1

        def shots_of(k, seed, tasks=tasks, ways=ways):
            y = torch.arange(ways)[None, :, None].expand(tasks, ways, k)
            return Shots(
                torch.rand(tasks, ways, k, 1, 28, 28), y, rng.fold_in(rng.key(seed), torch.arange(tasks))
            )

        episodes = Episode(
            shots_of(shots, 1), shots_of(queries, 2), torch.zeros(tasks, ways, dtype=torch.int64)
        )

        def step(over, net=net, method=method, objective=objective, episodes=episodes):
            net.zero_grad()
            params = objective.params()
            over(lambda e: method.meta_loss(objective, params, e))(episodes).mean().backward()

        ours, plain = median_seconds(lambda step=step: step(vmap), lambda step=step: step(loop))
        name = f"{model} x {learner}, {tasks} tasks, step"
        yield row(name, "ms", 1e3 * ours, 1e3 * plain, plain / ours)


def main():
    rows = [*sampler_rows(), *step_rows()]
    machine = f"{platform.machine()}-{os.cpu_count()}cpu-{torch.get_num_threads()}threads"
    head = {"machine": machine, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"), "rows": rows}
    lines = ["| work | unit | vectorised | loop | ratio |", "|:--|:--|--:|--:|--:|"]
    lines += [
        f"| {r['work']} | {r['unit']} | {r['ours']:.0f} | {r['loop']:.0f} | {r['ratio']:.2f} |" for r in rows
    ]
    table = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{machine}.json").write_text(json.dumps(head, indent=2) + "\n")
    (RESULTS / f"{machine}.md").write_text(f"torch {torch.__version__}, {head['date']}, {machine}\n\n{table}")
    print(table)


if __name__ == "__main__":
    main()
