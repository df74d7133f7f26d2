"""The parts of a meta-loss that run in low precision under ``trainer.precision=bf16-mixed`` or ``16-mixed``.

Lightning would run all of it so. But a second-order meta-gradient multiplies the rounding of every inner
step, so the model's passes are told apart: those of the adaptation to the support images, and that of the
query loss. Update rules, networks of a learner's own, norms, weights and all else are float32.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch

from metagen.errors import MetagenError, nearest

Lowered = Literal["none", "query", "all"]
"""Nothing, the query loss alone, or the adaptation, too."""
LEVELS: tuple[Lowered, ...] = ("none", "query", "all")


class LowPrecision(NamedTuple):
    """The parts that run in low precision, and its type.

    Weights, optimizer and everything outside of the meta-loss are float32 in any case.

    parts:  what runs in it.
    dtype:  ``torch.bfloat16`` or ``torch.float16``; None is full precision everywhere.
    device: kind of the device, such as ``"cpu"``.
    """

    parts: Lowered = "none"
    dtype: torch.dtype | None = None
    device: str = "cpu"

    def adaptation(self) -> AbstractContextManager[object]:
        """Return the context in which the model runs for the adaptation."""
        return self._context(self.parts == "all")

    def query(self) -> AbstractContextManager[object]:
        """Return the context in which it runs for the query loss."""
        return self._context(self.parts != "none")

    def _context(self, low: bool) -> AbstractContextManager[object]:
        if self.dtype is None:
            return nullcontext()
        # A cast of a weight that is kept for later would be without the graph of the transform around it.
        return torch.autocast(self.device, self.dtype, enabled=low, cache_enabled=False)

    def describe(self) -> str:
        """Return in words what runs how."""
        if self.dtype is None:
            return "everything in full precision"
        low = str(self.dtype).removeprefix("torch.")
        said = {
            "none": "nothing, since it would spoil the gradient",
            "query": "the query loss; adaptation in float32",
            "all": "adaptation and query loss",
        }
        return f"{low}: {said[self.parts]}; weights, validation and test in float32"


FULL = LowPrecision()


def ambient(device: torch.device) -> torch.dtype | None:
    """Return the type to which Lightning lowers what runs now, or None."""
    kind = device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def full(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which nothing is lowered."""
    return nullcontext() if ambient(device) is None else torch.autocast(device.type, enabled=False)


def least(levels: Iterable[Lowered]) -> Lowered:
    """Return the level that all of ``levels`` allow."""
    return min(levels, key=LEVELS.index)


def widened(x: torch.Tensor) -> torch.Tensor:
    """Return a result of low precision as float32, to go on with."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def check(precision: object, cpu: bool, clipped: bool, fused: bool, chunk: int | None) -> None:
    """Refuse a precision that cannot keep its promise.

    Args:
        precision: Lightning's name of it.
        cpu: whether the run is on a CPU.
        clipped: whether gradients are clipped.
        fused: whether the optimizer undoes the loss scale itself, inside its step.
        chunk: tasks at a time, None for all that fit.

    Raises:
        MetagenError: says what to set instead.
    """
    known = ("32-true", "64-true", "bf16-mixed", "16-mixed")
    name = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(
        str(precision), str(precision)
    )
    if name not in known:
        raise MetagenError(
            f"trainer.precision={precision}: expected one of {', '.join(known)}{nearest(name, known)}"
        )
    if name != "16-mixed":
        return
    if cpu:
        raise MetagenError("trainer.precision=16-mixed needs a GPU: use trainer=gpu, or bf16-mixed on a CPU")
    if clipped and fused:
        raise MetagenError(
            "trainer.precision=16-mixed clips no gradients of a fused optimizer, which are still scaled: "
            "set optimizer.fused=false, or use bf16-mixed"
        )
    if chunk is not None:
        raise MetagenError(
            f"chunk={chunk} with trainer.precision=16-mixed: the gradients of chunks are not scaled and "
            "vanish in float16; use chunk=null, or bf16-mixed"
        )
