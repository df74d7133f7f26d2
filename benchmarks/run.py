"""Ratios of one run on one machine: samplers and training steps, beside peers.

make benchmark            prints the tables and writes them to benchmarks/results/NAME.{json,md}
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import sampler
import step
import torch
from timing import in_turns, machine, markdown

from metagen.jobs.process import keep_freed_memory

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few tasks and rounds: shows that all runs")
    parser.add_argument("--only", default="", help="only what has this text in its name: sampler, VAE, ...")
    parser.add_argument("--tasks", type=int, help="tasks of a step (default: 32, VAE 16; quick: 4)")
    parser.add_argument(
        "--rounds", type=int, help="timings of which the median is taken (default: 5; quick: 2)"
    )
    parser.add_argument("--threads", type=int, help="threads of torch's (default: its own choice, all cores)")
    parser.add_argument("--name", default="latest", help="name of the result files")
    parser.add_argument("--device-only", action="store_true", help="with a GPU: only the steps on it")
    parser.add_argument("--compiled", action="store_true", help="with a GPU: the compiled step, too")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.tasks = args.tasks or (4 if args.quick else None)
    return args


def main() -> None:
    warnings.simplefilter("ignore")
    keep_freed_memory()  # as `metagen train` does; it is for all that are timed here
    args = arguments()
    if args.compiled:
        step.LEFT_OUT.clear()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = machine(device)
    sections: dict[str, list[dict[str, Any]]] = {"sampler": [], "step": [], "device": []}
    if args.only in "sampler" and not args.device_only:
        sections["sampler"] = _shown(sampler.rows(args.tasks or 32, args.rounds), sampler.COLUMNS)
    for work in step.works():
        if args.only not in work.name:
            continue
        tasks = args.tasks or work.tasks
        checked = min(tasks, 2 if args.quick else 4)
        if not args.device_only:
            rows = list(step.rows(work, tasks, args.rounds, checked))
            sections["step"] += _shown([*rows, _drawing(work, tasks, rows)], step.COLUMNS)
        if device == "cuda":
            for bf16 in (False, True):
                found = step.rows(work, tasks, args.rounds, checked, device, bf16)
                sections["device"] += _shown(found, step.COLUMNS)
    note = "" if device == "cuda" else "No CUDA device: the steps on a device are skipped.\n"
    print(note)
    write(args.results, args.name, facts, sections, note)


def _shown(rows: Any, columns: Any) -> list[dict[str, Any]]:
    found = list(rows)
    print(markdown(found, columns), flush=True)
    return found


def _drawing(work: step.Work, tasks: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what it costs to draw the batch, and which share that is of the step with ``auto``."""
    draw = sampler.ours(sampler.bank(), tasks, True, (work.ways, work.shots, min(work.queries, 15)))
    ms = 1e3 * in_turns({"draw": draw}, 20)["draw"]
    share = ms / next(row["ms"] for row in rows if row["by"] == "metagen, auto")
    return {
        "work": rows[0]["work"],
        "by": "drawing the tasks",
        "ms": ms,
        "note": f"{share:.2%} of auto's step",
    }


def write(folder: Path, name: str, facts: dict[str, Any], sections: dict[str, Any], note: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"machine": facts, **sections}, indent=2) + "\n")
    columns = {"sampler": sampler.COLUMNS, "step": step.COLUMNS, "device": step.COLUMNS}
    parts = [", ".join(f"{key} {value}" for key, value in facts.items())]
    parts += [markdown(rows, columns[section]) for section, rows in sections.items() if rows]
    (folder / f"{name}.md").write_text("\n\n".join([*parts, note]).rstrip() + "\n")


if __name__ == "__main__":
    main()
