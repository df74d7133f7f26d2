"""Images a second: every generator, adapted to one class and asked for many images at once."""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from timing import in_turns, markdown

from metagen.config.tree import conf_dir
from metagen.core.episode import Shots
from metagen.core.model import Generator
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng

COLUMNS = ("generator", "images", "images a second", "MB", "note")
LEARNERS = ("amortized", "in_context", "reptile")


def rows(device: str, images: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for every generator: how many images of one class it draws in a second."""
    for path in sorted((conf_dir() / "model").glob("*.yaml")):
        try:
            draw = drawing(path.stem, device, images)
        except MetagenError as error:
            yield {"generator": path.stem, "note": str(error)}
            continue
        if draw is None:
            continue
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = in_turns({"draw": draw}, rounds, device)["draw"]
        row = {"generator": path.stem, "images": images, "images a second": images / seconds}
        yield row | ({"MB": torch.cuda.max_memory_allocated() / 1e6} if device == "cuda" else {})


def drawing(name: str, device: str, images: int) -> Any:
    """Return a function that draws ``images`` images of one class, None where the model is no generator.

    Raises:
        MetagenError: no learner of ``LEARNERS`` serves the model.
    """
    for learner_name in LEARNERS:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", [f"model={name}", f"learner={learner_name}", "task.ways=1"])
        torch.manual_seed(0)
        model = instantiate(cfg.model)
        if not isinstance(model, Generator):
            return None
        learner = instantiate(cfg.learner)
        objective = Objective(model)
        try:
            learner.bind(objective, 8)
            break
        except MetagenError as error:
            refused = error
    else:
        raise refused
    model.to(device).eval(), learner.to(device).eval()
    x = torch.rand(1, cfg.task.shots, 1, cfg.data.size, cfg.data.size, device=device)
    shots = Shots(x, torch.zeros(1, cfg.task.shots, dtype=torch.long, device=device), rng.key(0).to(device))
    with torch.no_grad():
        params = learner.adapt(objective, objective.params(), shots, min(learner.test_steps, 1))

    labels = torch.zeros(images, dtype=torch.long, device=device)

    @torch.no_grad()
    def draw() -> None:
        objective.call("sample", params, labels, rng.key(1).to(device))

    return draw


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    found = list(rows(sys.argv[1], 4 if quick else 1024, 1 if quick else 5))
    print(markdown(found, COLUMNS))
    print(f"{len(found)} generators, {sum('images a second' in row for row in found)} timed")
