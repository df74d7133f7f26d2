"""Weights to hand on: a trained run's parameters as a safetensors file, without code or optimizer state."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from metagen.reading import opened


def packed(checkpoint: dict[str, Any], half: bool = True) -> bytes:
    """Return the weights of a checkpoint as the bytes of a safetensors file.

    Args:
        checkpoint: as :func:`metagen.training.checkpoints.read_checkpoint` returns it.
        half: whether floats are stored in 16 bits, 5 bits of exponent and 10 of mantissa; what is larger than
            65,504 keeps its 32 bits.
    """
    state = {name: _stored(x, half) for name, x in checkpoint["state_dict"].items()}
    told = checkpoint.get("hyper_parameters")
    classes = told.get("classes", 1) if isinstance(told, dict) else 1
    about = {"format": "pt", "global_step": str(checkpoint["global_step"]), "classes": str(classes)}
    return save(state, about)


def unpacked(path: Path) -> dict[str, Any]:
    """Return what a safetensors file of :func:`packed` holds, as a checkpoint; floats have 32 bits again.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or not whole.
    """
    with opened(path):
        pass  # a regular file, as everything that somebody else may have written
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {name: _loaded(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        step, classes = int(about["global_step"]), int(about["classes"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"no weights of metagen: {error}") from error
    return {"state_dict": state, "global_step": step, "hyper_parameters": {"classes": classes}}


def _stored(x: Tensor, half: bool) -> Tensor:
    if not x.is_floating_point() or not half:
        return x.contiguous().clone()
    small = x.half()
    return (small if bool(torch.isfinite(small).all()) else x.float()).contiguous()


def _loaded(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 else x
