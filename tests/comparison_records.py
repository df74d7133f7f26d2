"""Made-up runs for the tests of what reads many of them."""

import json

import numpy as np

MORE = {"recognised": ("%", "higher"), "negative_elbo": ("nats", "lower")}


def record(learner, seed, values, sha="a", tested=("7", "8"), overrides=(), bank="b", **more):
    """A record whose ``values`` are {step: {metric: values of the episodes}}."""

    def summaries(found):
        return {
            name: {"mean": float(np.mean(one)), "ci95": 1.0, "n": len(one)} for name, one in found.items()
        }

    last = max(values)
    return {
        "overrides": [f"learner={learner}", *overrides, f"seed={seed}"],
        "choices": {"learner": learner, "model": "vae", "data": "digits", "task": "generate"},
        "seed": seed,
        "split": {"train": ["0"], "val": [], "test": list(tested)},
        "data": {"test": {"name": f"bank {bank}", "sha256": bank}},
        "episodes": {"sha256": sha, "count": len(next(iter(values[last].values())))},
        "task": {"shots": 5},
        "training": {"steps": 5, "seconds": 100.0 if learner != "scratch" else 0.0},
        "main": "recognised",
        "metrics": summaries(values[last]),
        "units": {name: unit for name, (unit, _) in MORE.items()},
        "better": {name: better for name, (_, better) in MORE.items()},
        "per_episode": values[last],
        "per_episode_by_step": {str(step): found for step, found in values.items()},
        "adaptation": [
            {"step": step, "seconds": 0.5 * step, "flops": 1000 * step, "metrics": summaries(found)}
            for step, found in values.items()
        ],
    } | more  # fmt: skip


def write(folder, *records):
    """Write records (text as it is, None: no record) as runs 0, 1, 2, ... and return the folder."""
    for item in records:
        own = folder / str(len(list(folder.glob("*"))))
        (own / ".hydra").mkdir(parents=True)
        if item is not None:
            (own / "metrics.json").write_text(item if isinstance(item, str) else json.dumps(item))
    return folder
