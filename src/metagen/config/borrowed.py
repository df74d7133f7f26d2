"""The ranges of the arguments of torch's and Lightning's classes, whose signatures say none.

A class of ours says them in its own constructor (:mod:`metagen.ranges`).
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from metagen.ranges import (
    LARGEST,
    MANY,
    Decay,
    Finite,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Text,
)

Batches = PositiveInt | Annotated[float, Gt(0), Le(1)]
"""A number of batches, or a share of them."""

BORROWED: dict[str, dict[str, Any]] = {
    "lightning.Trainer": {
        "accelerator": Text,
        "devices": Annotated[int, Ge(-1), Le(1024)] | Text | Annotated[list[NonNegativeInt], MinLen(1)],
        "num_nodes": Annotated[int, Ge(1), Le(4096)],
        "max_steps": PositiveInt,
        "min_steps": NonNegativeInt | None,
        "max_epochs": Annotated[int, Ge(-1), Le(MANY)] | None,
        "min_epochs": NonNegativeInt | None,
        "fast_dev_run": bool | NonNegativeInt,
        "limit_train_batches": NonNegativeInt | Probability | None,
        "limit_val_batches": NonNegativeInt | Probability | None,
        "limit_test_batches": NonNegativeInt | Probability | None,
        "limit_predict_batches": NonNegativeInt | Probability | None,
        "overfit_batches": NonNegativeInt | Probability,
        "val_check_interval": Batches | Text | None,
        "check_val_every_n_epoch": PositiveInt | None,
        "num_sanity_val_steps": Annotated[int, Ge(-1), Le(MANY)] | None,
        "log_every_n_steps": PositiveInt | None,
        "accumulate_grad_batches": PositiveInt,
        "gradient_clip_val": NonNegativeFloat | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
        "enable_progress_bar": bool,
        "reload_dataloaders_every_n_epochs": NonNegativeInt,
        "profiler": Literal["simple", "advanced", "pytorch"] | dict | None,
    },
    "lightning.EarlyStopping": {
        "monitor": Text,
        "mode": Literal["min", "max"],
        "patience": NonNegativeInt,
        "min_delta": Finite,
        "stopping_threshold": Finite | None,
        "divergence_threshold": Finite | None,
    },
    "lightning.EMAWeightAveraging": {
        "decay": Decay,
        "update_every_n_steps": PositiveInt,
        "update_starting_at_step": NonNegativeInt | None,
        "update_starting_at_epoch": NonNegativeInt | None,
        "device": Text | None,
    },
    "lightning.LearningRateMonitor": {"logging_interval": Literal["step", "epoch"] | None},
    "lightning.pytorch.loggers": {
        "experiment": dict | None,  # an object, made by its _target_
        "name": Text | None,
        "version": NonNegativeInt | str | None,
        "flush_logs_every_n_steps": PositiveInt,
        "tracking_uri": Text | None,
        "experiment_name": Text,
        "project": Text | None,
    },
    "torch.optim": {
        "lr": PositiveFloat,
        "betas": tuple[Decay, Decay],
        "eps": NonNegativeFloat,
        "weight_decay": NonNegativeFloat,
        "momentum": Decay,
        "dampening": Probability,
        "alpha": Decay,
        "rho": Decay,
        "lr_decay": NonNegativeFloat,
        "lambd": NonNegativeFloat,
    },
    "torch.optim.lr_scheduler": {
        "factor": Probability,
        "start_factor": Annotated[float, Gt(0), Le(1)],
        "end_factor": Probability,
        "total_iters": NonNegativeInt,
        "last_epoch": Annotated[int, Ge(-1), Le(MANY)],
        "T_max": PositiveInt,
        "T_0": PositiveInt,
        "T_mult": PositiveInt,
        "eta_min": NonNegativeFloat,
        "max_lr": PositiveFloat | list[PositiveFloat],
        "total_steps": PositiveInt | None,
        "epochs": PositiveInt | None,
        "steps_per_epoch": PositiveInt | None,
        "pct_start": Probability,
        "anneal_strategy": Literal["cos", "linear"],
        "base_momentum": Probability | list[Probability],
        "max_momentum": Probability | list[Probability],
        "div_factor": Annotated[float, Ge(1), Le(LARGEST)],
        "final_div_factor": Annotated[float, Ge(1), Le(LARGEST)],
        "gamma": Annotated[float, Gt(0), Le(LARGEST)],
        "step_size": PositiveInt,
        "power": NonNegativeFloat,
    },
    "torch.nn": {
        "p": Probability,
        "eps": PositiveFloat,
        "negative_slope": Finite,
    },
}
"""Of classes by the first and last part of their names, or of all of a package: argument -> annotation."""


def borrowed(target: str) -> dict[str, Any]:
    """Return what is said of the arguments of a class that is not ours; the closest name counts."""
    short = f"{target.partition('.')[0]}.{target.rpartition('.')[2]}"
    names = [name for name in BORROWED if name in (target, short) or target.startswith(f"{name}.")]
    return BORROWED[max(names, key=len)] if names else {}
