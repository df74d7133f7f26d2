"""End a trial early whose validation losses are worse than those of the trials before it."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from metagen.config.pruners import PRUNER, make_pruner
from metagen.errors import TrialPrunedError, UsageError
from metagen.variables import TRIAL


class Pruning(Callback):
    """Reports every validation loss to the study and asks its pruner whether to go on.

    Args:
        storage: address of the study's database.
        number: of the trial.
    """

    def __init__(self, storage: str, number: int) -> None:
        import optuna

        study = optuna.load_study(study_name="metagen", storage=storage)
        study.pruner = make_pruner(study.user_attrs.get(PRUNER))
        # The study's direction is the metric's; a loss is better where it is lower.
        self.sign = 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
        frozen = study.get_trials(deepcopy=False)[number]
        self.trial = optuna.trial.Trial(study, frozen._trial_id)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Report the loss.

        Raises:
            TrialPrunedError: the trial is hopeless.
        """
        loss: Any = trainer.callback_metrics.get("val/loss")
        if loss is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        self.trial.report(self.sign * float(loss), trainer.global_step)
        if self.trial.should_prune():
            raise TrialPrunedError(f"pruned at step {trainer.global_step}: validation loss {float(loss):.4g}")


def pruning() -> list[Callback]:
    """Return the callback where this process runs a trial of a study that prunes.

    Raises:
        UsageError: the environment names a trial that there is not.
    """
    named = os.environ.get(TRIAL, "")
    if not named:
        return []
    number, _, storage = named.partition(":")
    file = Path(storage.removeprefix("sqlite:///"))
    if not number.isdigit() or not storage or (storage.startswith("sqlite:") and not file.is_file()):
        # SQLite would make the file.
        raise UsageError(f"{TRIAL}={named}: expected NUMBER:DATABASE of a study that there is; unset it")
    try:
        return [Pruning(storage, int(number))]
    except Exception as error:  # whatever optuna and its database say
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{TRIAL}={number}:{storage}: no trial of a study ({reason}); unset it, or start the sweep again"
        ) from error
