"""The state of a training in a checkpoint: whether a training can go on from it."""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from packaging.version import InvalidVersion, Version


class ShapeError(ValueError):
    """What is missing in a checkpoint, or of another type."""


TO_GO_ON: dict[str, Any] = {
    "epoch": int, "pytorch-lightning_version": str, "optimizer_states": list, "lr_schedulers": list,
    "callbacks": {}, "loops": {"fit_loop": {"state_dict": {}, "epoch_loop.state_dict": {}}},
}  # fmt: skip
"""What else is needed to go on."""


def check_shape(value: Any, shape: Any, name: str = "") -> None:
    """Refuse what lacks a key of a shape, or has another type there."""
    kind = dict if isinstance(shape, dict) else shape
    if not isinstance(value, kind):
        raise ShapeError(f"{name or 'it'} is no {kind.__name__}")
    for key, inner in shape.items() if isinstance(shape, dict) else ():
        if key not in value:
            raise ShapeError(f"{name or 'it'} has no {key}")
        check_shape(value[key], inner, key)
    if name == "state_dict" and not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise ShapeError("state_dict holds something else than tensors")


def check_state(saved: Mapping[str, Any], module: L.LightningModule | None) -> None:
    """Refuse a checkpoint from which no training can go on.

    Args:
        saved: what it holds.
        module: whose optimizer and schedule are to take their states; None does not ask.

    Raises:
        ShapeError: a part is missing, of another type, or another optimizer's.
    """
    check_shape(saved, TO_GO_ON)
    try:
        Version(saved["pytorch-lightning_version"])
    except InvalidVersion as error:
        raise ShapeError(f"pytorch-lightning_version is {saved['pytorch-lightning_version']!r}") from error
    for one in saved["optimizer_states"]:
        check_shape(one, {"state": {}, "param_groups": list}, "optimizer_states")
    _check_callbacks(saved["callbacks"])
    _check_like(saved["loops"]["fit_loop"], _fresh_loops(), "fit_loop")
    if module is not None:
        _check_optimizers(saved, module)


def _check_callbacks(saved: Mapping[str, Any]) -> None:
    """Refuse states of our callbacks whose values are of another type."""
    kinds = {"best_model_score": float | int | None, "seconds": float | int, "resumed": int, "total": int,
             "row": int}  # fmt: skip
    for name, state in saved.items():
        if not isinstance(state, dict):
            raise ShapeError(f"the state of {name} is no dict")
        needed = {"Keeper": ("best_model_score", "seconds", "resumed"), "SkipBadSteps": ("total", "row")}
        for key in next((keys for ours, keys in needed.items() if str(name).startswith(ours)), ()):
            if key not in state or not isinstance(state[key], kinds[key]):
                raise ShapeError(f"{name} has no {key}")


def _fresh_loops() -> dict[str, Any]:
    """Return the state of the loops of a trainer that has not begun."""
    plain = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    log_of_it = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = log_of_it.level
    log_of_it.setLevel(logging.ERROR)
    try:
        trainer = L.Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **plain)  # type: ignore[arg-type]
    finally:
        log_of_it.setLevel(level)
    return dict(trainer.fit_loop.state_dict())


def _check_like(value: Any, fresh: Any, name: str) -> None:
    """Refuse a state in which a key of a fresh one is missing, of another type or negative."""
    if isinstance(fresh, dict):
        if not isinstance(value, dict):
            raise ShapeError(f"{name} is no dict")
        for key, inner in fresh.items():
            if key not in value and inner != {}:
                raise ShapeError(f"{name} has no {key}")
            _check_like(value.get(key, {}), inner, str(key))
    elif type(value) is not type(fresh) or (isinstance(value, int) and value < 0):
        raise ShapeError(f"{name} is {value!r}")


def _check_optimizers(saved: Mapping[str, Any], module: L.LightningModule) -> None:
    """Refuse states that the optimizer and the schedule of a module cannot go on from, by trying it."""
    found: Any = module.configure_optimizers()
    made = found or {}
    optimizers = [made["optimizer"]] if isinstance(made, dict) and made else [made] if made else []
    schedules = [made["lr_scheduler"]["scheduler"]] if isinstance(made, dict) and made else []
    for name, objects in (("optimizer_states", optimizers), ("lr_schedulers", schedules)):
        if len(saved[name]) != len(objects):
            raise ShapeError(f"it has {len(saved[name])} {name}, not {len(objects)}")
        for state, one in zip(saved[name], objects, strict=True):
            fresh = one.state_dict()
            if not isinstance(state, dict) or not fresh.keys() <= state.keys():
                raise ShapeError(f"{name} is another one's")
            try:
                one.load_state_dict(copy.deepcopy(state))
            except Exception as error:
                raise ShapeError(f"{name}: {' '.join(str(error).split())[:100]}") from error
    for optimizer in optimizers:
        _check_moments(optimizer)


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Refuse what an optimizer remembers of a parameter and is of another shape, or no tensor."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            scalar = key == "step"
            if not isinstance(value, torch.Tensor) or (not scalar and value.shape != parameter.shape):
                raise ShapeError(f"optimizer_states: {key} does not fit its parameter")
