"""Rates of hand-made optimizers, tuned on the training tasks of an experiment.

python benchmarks/tune_rates.py experiment=metanet_basenet
python benchmarks/tune_rates.py experiment=metanet_vae --episodes 16 --learners scratch_adam

Every rate of a grid with factors of about 3, then its neighbours by factors of 1.4, is judged by the mean
query loss after ``learner.test_steps`` steps, on the same training episodes from the same random starts.
"""

import argparse
import math

import torch
from hydra import compose, initialize_config_dir
from timing import markdown

from metagen.config.tree import conf_dir
from metagen.jobs.build import build

LEARNERS = ("scratch_sgd", "scratch_momentum", "scratch_adam")
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
FINE = (0.5, 0.7, 1.4, 2.0)


def query_loss(overrides: list[str], episodes: int) -> float:
    """Return the mean loss of the query images over training episodes; infinity where it diverges."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        parts = build(compose("config", overrides))
    experiment, stream = parts.experiment, parts.data.streams.train
    objective, learner, losses = experiment.objective, experiment.learner, []
    params = {name: p.detach() for name, p in objective.params().items()}
    seen = 0
    while seen < episodes:
        batch = stream.batch(len(losses))
        with torch.no_grad():
            loss = experiment.over(
                lambda episode: objective.query_loss(
                    learner.adapt(objective, params, episode.support, learner.test_steps), episode
                )
            )(batch)
        losses.append(loss)
        seen += len(loss)
    mean = float(torch.cat(losses).mean())
    return mean if math.isfinite(mean) else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="experiment=NAME and further overrides")
    parser.add_argument("--episodes", type=int, default=32, help="training episodes for every rate")
    parser.add_argument("--learners", nargs="+", default=LEARNERS)
    args = parser.parse_args()
    rows = []
    for learner in args.learners:
        found: dict[float, float] = {}

        def measure(rates: list[float], learner: str = learner, found: dict[float, float] = found) -> float:
            for rate in rates:
                chosen = [f"learner={learner}", f"learner.rule.rate={rate:g}"]
                found[rate] = query_loss([*args.overrides, *chosen], args.episodes)
                print(f"{learner} {rate:g}: {found[rate]:.4g}", flush=True)
            return min(found, key=found.__getitem__)

        best = measure(list(GRID))
        best = measure([best * factor for factor in FINE])
        rows.append({"learner": learner, "best rate": f"{best:.2g}", "query loss": found[best]})
    print(markdown(rows, ("learner", "best rate", "query loss")))


if __name__ == "__main__":
    main()
