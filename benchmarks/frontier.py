"""The frontier of one-shot generators: are drawings recognised, over how much they vary?

    metagen train -m experiment=omniglot_samples model=warp learner=in_context model.strength=0.7,0.85,1 \\
      hydra.sweep.dir=warped
    metagen evaluate RUN model.spread=0.8       # as often as there are to be points
    python benchmarks/frontier.py warped RUN ... --out frontier.png

Draws a line for each model through its runs, recognizability against feature diversity (Boutin et al.,
NeurIPS 2022), each point with its 95 % intervals and, where it was measured, how often it is told apart from
real drawings; those are the star. Only runs of the same test episodes are drawn together.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metagen.errors import MetagenError
from metagen.report.pictures import write_figure
from metagen.runs.records import collect

X, Y, Z = "feature_diversity", "recognizability", "told_apart"


def lines(folders: list[Path]) -> dict[str, list[dict[str, Any]]]:
    """Return the metrics of the runs below ``folders`` by model, along the frontier."""
    runs, _ = collect(folders)
    episodes = {run.record["episodes"]["sha256"] for run in runs}
    if len(episodes) > 1:
        raise MetagenError("the runs were tested on different episodes: give those of the same ones")
    found = defaultdict(list)
    for run in runs:
        found[run.record["choices"]["model"]].append(run.record["metrics"])
    return {name: sorted(points, key=lambda point: point[X]["mean"]) for name, points in found.items()}


def draw(found: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Write the picture."""
    figure = Figure((6, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, points in found.items():
        x, y = ([point[key]["mean"] for point in points] for key in (X, Y))
        errors = [[point[key]["ci95"] or 0 for point in points] for key in (X, Y)]
        axes.errorbar(x, y, errors[1], errors[0], marker="o", ms=4, lw=1.2, elinewidth=0.6, label=name)
        for point, at in zip(points, zip(x, y, strict=True), strict=True):
            if Z in point:
                axes.annotate(
                    f"{point[Z]['mean']:.0f}", at, xytext=(4, 4), textcoords="offset points", fontsize=7
                )
    real = next(iter(found.values()))[0].get("recognizability_real")
    if real:
        axes.plot([1], [real["mean"]], "*", color="black", ms=11, label="real drawings")
    axes.set_xlabel("feature diversity (real drawings 1)")
    axes.set_ylabel("recognised among 20, %")
    axes.set_title("small numbers: told apart from real ones, % (blind 50)", fontsize=8, color="0.35")
    axes.legend(frameon=False, fontsize=8)
    write_figure(out, figure)


def main() -> None:
    """Read the command line, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("frontier.png"))
    args = parser.parse_args()
    found = lines(args.runs)
    print(f"| model | {Y} % | {X} | {Z} % |\n|:--|--:|--:|--:|")
    for name, points in found.items():
        for point in points:
            cells = [f"{point[key]['mean']:.3g}" if key in point else "" for key in (Y, X, Z)]
            print(f"| {name} | {' | '.join(cells)} |")
    draw(found, args.out)


if __name__ == "__main__":
    main()
