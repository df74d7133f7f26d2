"""Train every learner with every model it serves on every embedded data set: ``python tests/recipes.py``.

Everything else is at its defaults. A row of the table passes if training and validation stay finite, no loss
ends far above its start and the memory is enough. It goes on where it was stopped; a part of it is, e.g.,

    python tests/recipes.py --only learner=maml data=icons
"""

import argparse
import itertools
import logging
import math
import sys
import warnings
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import conftest
from hydra.errors import InstantiationException
from recipe_row import Row, measured

from metagen.errors import MetagenError
from metagen.files import write_text
from metagen.jobs.environment import processor, versions

DATA = ("glyphs", "mnist_5k", "icons")
"""What is embedded."""
NONE = "-"
QUICKSTART = "quickstart"
"""The experiment in which a newcomer tries a learner, with its own model and data."""
CLASSIFIERS = ("basenet", "conv4")
CLASSES = {"mnist_5k": 10}
"""Of each data set with a published test part, on which plain training is tested: it is told their number."""
COLOURS = {"glyphs": 1, "mnist_5k": 1, "icons": 3}
"""Channels of their images, where not every model draws in colour."""
TABLE = Path(__file__).parents[1] / "benchmarks" / "results" / "recipes.md"
COLUMNS = (
    "experiment", "learner", "model", "data", "steps", "loss at start", "at end", "validation at start",
    "at end", "peak GB", "seconds", "result",
)  # fmt: skip
HEAD = """# Every learner's defaults

Each learner, with each model that it serves, on each embedded data set, everything else at its defaults; and
in `experiment=quickstart`, which brings its own model and data. Written by `make recipes`, on one thread.
A row passes if training and validation stay finite, neither loss ends far above its start
(`metagen.training.divergence`) and 4 GB of memory are enough. A control that is not trained (`scratch`) has
its validation loss before and after its own steps instead, and only has to stay finite: with one image of a
class it may well fit these too closely. The value of the loss of `reptile`, or of a
`gan`, tells nothing. What has no row has not been tried on this machine.
"""


class Recipe(NamedTuple):
    """What is trained: the choices of three groups, in an experiment or in none."""

    experiment: str
    learner: str
    model: str
    data: str

    @property
    def overrides(self) -> list[str]:
        """Return what composes it."""
        if self.experiment:
            kept = [] if self.model == "vae" else [f"model={self.model}"]
            return [f"experiment={self.experiment}", f"learner={self.learner}", *kept]
        task = "classify" if self.model in CLASSIFIERS else "generate"
        few = [f"learner={self.learner}", f"model={self.model}", f"data={self.data}"]
        if self.learner == "supervised":
            return [*few, "task=supervised", f"task.ways={CLASSES[self.data]}"]
        return [*few, f"task={task}"]


def candidates() -> list[Recipe]:
    """Return everything that might fit, what a newcomer tries first."""
    learners, models = conftest.choices("learner"), conftest.choices("model")
    quick = [Recipe(QUICKSTART, one, "vae", "glyphs") for one in learners]
    quick += [Recipe(QUICKSTART, "in_context", "pixel_transformer", "glyphs")]
    return quick + [Recipe("", *one) for one in itertools.product(learners, models, DATA)]


def recipes(only: Sequence[str] = ()) -> list[Recipe]:
    """Return what fits of the candidates, as far as all of ``KEY=CHOICE,CHOICE`` hold; ``-``: none."""
    wanted = {key: values.split(",") for key, _, values in (word.partition("=") for word in only)}
    asked = [
        one
        for one in candidates()
        if all((getattr(one, name) or NONE) in words for name, words in wanted.items())
    ]
    tested = [one for one in asked if one.learner != "supervised" or one.data in CLASSES]
    return [one for one in tested if fits(one.model, one.learner, COLOURS[one.data])]


@cache
def fits(model: str, learner: str, colours: int) -> bool:
    """Return whether a learner serves a model, and that one images of so many channels."""
    try:
        conftest.build_pair(model, learner, images=(colours, 28))
    except (MetagenError, InstantiationException) as error:
        if not isinstance(error, MetagenError) and not isinstance(error.__cause__, MetagenError):
            raise
        return False
    return True


def read(table: Path) -> dict[tuple[str, ...], str]:
    """Return the lines of a table by their first columns."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    rows = [line for line in lines if line.startswith("| ") and "| :--" not in line]
    cells = {line: tuple(cell.strip() for cell in line.strip("|").split("|")) for line in rows[1:]}
    return {of[:5]: line for line, of in cells.items()}


def key(recipe: Recipe, steps: int) -> tuple[str, ...]:
    """Return the first columns of a row."""
    return (recipe.experiment or NONE, *recipe[1:], str(steps))


def line(recipe: Recipe, steps: int, row: Row) -> str:
    """Return a row of the table."""
    figures = ["-" if x is None else f"{x:.4g}" for x in row[:4]]
    result = " ".join(row.result.split()).replace("|", "/")[:160]
    cells = [*key(recipe, steps), *figures, f"{row.peak:.2f}", f"{row.seconds:.0f}", result]
    return f"| {' | '.join(cells)} |"


def write(table: Path, rows: dict[tuple[str, ...], str]) -> None:
    """Write the table, in the order of the recipes."""
    facts = ", ".join(f"{name} {one}" for name, one in versions().items())
    names = f"| {' | '.join(COLUMNS)} |\n|{' :-- |' * len(COLUMNS)}"
    failed = sum(not text.endswith("| passes |") for text in rows.values())
    counted = f"{len(rows)} rows, {failed} of which fail; the last one of {date.today()}"
    order = {key(one, 0)[:4]: i for i, one in enumerate(candidates())}
    lines = sorted(rows, key=lambda of: (order.get(of[:4], len(order)), of))
    text = [HEAD, f"{processor()}; {facts}. {counted}.\n", names, *(rows[of] for of in lines)]
    write_text(table, "\n".join(text) + "\n")


def run(todo: Sequence[Recipe], table: Path, steps: int, most: float, longest: float, again: bool) -> int:
    """Train what is not in the table yet, and return how many rows of all that was asked for fail."""
    failed = 0
    for recipe in todo:
        done = read(table).get(key(recipe, steps))
        if done is None or (again and not done.endswith("| passes |")):
            done = line(recipe, steps, measured(recipe.overrides, steps, most, longest))
            write(table, {**read(table), key(recipe, steps): done})
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()
        failed += not done.endswith("| passes |")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="KEY=CHOICE,CHOICE",
        help="a part: experiment, learner, model, data",
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--most", type=float, default=4.0, help="GB of memory")
    parser.add_argument("--longest", type=float, default=math.inf, help="seconds of a row")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--again", action="store_true", help="train rows anew that failed")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    todo = recipes(args.only)
    failed = run(todo, args.table, args.steps, args.most, args.longest, args.again)
    sys.stdout.write(f"{len(todo)} recipes, {failed} of which fail: {args.table}\n")
    sys.exit(bool(failed))
