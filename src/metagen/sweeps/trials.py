"""The table of the trials of a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader

from metagen.errors import MetagenError
from metagen.report.tables import comparison_table
from metagen.sweeps.best import write_experiment
from metagen.sweeps.space import Space


def trials_table(study: Any, root: Path, space: Space, names: Sequence[str], loader: ConfigLoader) -> str:
    """Return a table of the trials, the best first, and write these as experiment files.

    Raises:
        MetagenError: not one came to its end.
    """
    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not trials:
        raise MetagenError(f"not one of {len(study.trials)} trials came to its end: see {root}/jobs")
    best = {trial.number for trial in study.best_trials}
    trials.sort(key=lambda trial: (trial.number not in best, trial.number))
    lines = ["", comparison_table([_row(trial, names, trial.number in best) for trial in trials])[0]]
    counts = {
        state: sum(trial.state.name == state for trial in study.trials)
        for state in ("COMPLETE", "PRUNED", "FAIL")
    }
    lines.append("sweep {}: {} trials done, {} pruned, {} failed".format(root, *counts.values()))
    for trial in study.best_trials:
        name = "best" if len(best) == 1 else f"best_{trial.number}"
        values = ", ".join(f"{key} {value:.6g}" for key, value in zip(names, trial.values, strict=True))
        path = root / "conf" / "experiment" / f"{name}.yaml"
        write_experiment(path, space.overrides(trial.params), loader, f"Trial {trial.number}: {values}")
        lines.append(f"metagen train --config-dir {root}/conf experiment={name}")
    return "\n".join(lines)


def _row(trial: Any, names: Sequence[str], best: bool) -> dict[str, Any]:
    params = {key: f"{v:.4g}" if isinstance(v, float) else str(v) for key, v in trial.params.items()}
    values = dict(zip(names, trial.values, strict=True))
    return {"trial": str(trial.number), **params, **values, "best": "*" if best else ""}
