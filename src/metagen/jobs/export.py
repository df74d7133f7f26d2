"""The job of ``metagen export``: a trained run as a folder to hand on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metagen.config.compose import resolved
from metagen.config.flat import flatten
from metagen.config.overrides import key_of
from metagen.files import check_new_folder, new_folder, write_bytes, write_text
from metagen.jobs.build import build_experiment
from metagen.learners.adapts import matching
from metagen.runs.places import located
from metagen.runs.records import WEIGHTS, is_exported
from metagen.runs.reopen import DATA, Reopened, best_checkpoint, reopen
from metagen.runs.result import Result
from metagen.training.checkpoints import read_checkpoint
from metagen.training.weights import packed

OF_THIS_MACHINE = (
    "data.root",
    "data.cache",
    "test_data.root",
    "test_data.cache",
    "judge.cache",
    "checkpoint",
)

NO_FIGURES = "The run has not been evaluated."
CARD = Path(__file__).with_name("card.md")
"""The model card, with places for :meth:`str.format`."""


def export(run: str | Path, to: Path, half: bool = True, force: bool = False) -> str:
    """Write the best state of ``run`` into ``to``: what ``load``, ``generate`` and ``evaluate`` take.

    Args:
        run: a trained run's folder.
        to: new (or empty) folder.
        half: whether weights are stored in 16 bits.
        force: whether to write over an earlier export in ``to``.

    Returns:
        A line for the user.

    Raises:
        MetagenError: no run, no checkpoint, or a folder that is not empty; nothing was written.
    """
    check_new_folder("--to", to, force, own=(".hydra",) if is_exported(to) else ())
    folder = located(run)
    saved = read_checkpoint(best_checkpoint(folder))
    opened = reopen(folder, start=False)
    weights = packed(saved | {"state_dict": _for_samples(saved["state_dict"], opened)}, half)
    with new_folder(to) as new:
        (new / ".hydra").mkdir()
        write_text(new / ".hydra/config.yaml", _yaml(_portable(opened.config)))
        write_text(new / ".hydra/overrides.yaml", _yaml(_own(opened)))
        write_text(new / ".hydra/hydra.yaml", _yaml({"hydra": {"runtime": {"choices": opened.choices}}}))
        write_bytes(new / WEIGHTS, weights)
        write_text(new / "README.md", card(opened, folder, int(saved["global_step"]), half))
    return f"{to}: {WEIGHTS} with {len(weights) / 2**20:.1f} MiB, .hydra, README.md"


def _for_samples(state: Mapping[str, Any], opened: Reopened) -> dict[str, Any]:
    """Return the weights without those that only training needs."""
    model = build_experiment(resolved(opened.config), 1).objective.model
    needless = matching(model.state_dict(), model.training_only)
    return {name: x for name, x in state.items() if name.removeprefix("model.") not in needless}


def card(opened: Reopened, folder: Path, steps: int, half: bool) -> str:
    """Return the model card, in Markdown."""
    choices, config = opened.choices, flatten(opened.config)
    rows: dict[str, str] = {
        group: choices[group] for group in ("experiment", "model", "learner", "data") if choices.get(group)
    }
    rows |= {"images": f"{config.get('data.size')} x {config.get('data.size')} pixels"}
    data = choices.get("data", "data of your own")
    return CARD.read_text(encoding="utf-8").format(
        title=f"{choices.get('model', 'model')} with {choices.get('learner', 'learner')}",
        data=data, table="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
        weights=WEIGHTS, bits=16 if half else 32, steps=steps, overrides=" ".join(_own(opened)),
        figures=_figures(folder),
    )  # fmt: skip


def _figures(folder: Path) -> str:
    """Return the metrics of the run as a table in Markdown."""
    if is_exported(folder) and (folder / "README.md").is_file():
        return _figures_of_card((folder / "README.md").read_text(encoding="utf-8"))  # exported once already
    if not (folder / "metrics.json").is_file():
        return NO_FIGURES
    rows = [
        f"| {row['metric']} | {row['mean']:.4g} | {row['ci95']:.2g} | {row['unit']} | {row['n']} |"
        for row in Result.read(folder).metrics
        if row["mean"] is not None and row["ci95"] is not None
    ]
    head = "Means over test episodes of unseen classes, with 95 % half-widths.\n\n"
    return head + "\n".join(
        ["| metric | mean | ± | unit | episodes |", "| --- | --- | --- | --- | --- |", *rows]
    )


def _figures_of_card(text: str) -> str:
    """Return the figures that a model card holds."""
    return text.partition("## Figures\n")[2].partition("\n## ")[0].strip() or NO_FIGURES


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the paths of this machine."""
    out = dict(config)
    for name in ("data", "test_data", "judge"):
        if isinstance(node := out.get(name), Mapping):
            here = {"root": DATA, "cache": None}
            out[name] = {key: here.get(key, value) for key, value in node.items()}
    return out | {"checkpoint": None}


def _own(opened: Reopened) -> list[str]:
    return [text for text in opened.overrides if key_of(text) not in OF_THIS_MACHINE]


def _yaml(node: Any) -> str:
    return str(yaml.safe_dump(node, sort_keys=False, allow_unicode=True))
