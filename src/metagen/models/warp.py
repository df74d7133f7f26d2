"""The control of every generator: the support images under random affine maps, without any learning."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from metagen.core.episode import Params, Shots
from metagen.core.model import Generator
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.models.resample import ENLARGED, affine, sharply
from metagen.ranges import Colours, NonNegativeFloat, Side, checked

STRENGTHS = ("turn", "shear", "scale", "shift")


class Warp(Generator):
    r"""A new image is one of the support images, drawn at random, under a random affine map.

    .. math:: x = m_i \circ A(s \epsilon), \quad i \sim U\{1 \dots K\}, \quad \epsilon \sim N(0, \Sigma)

    with Sigma the squares of four standard deviations (see :mod:`metagen.models.resample`) and s one
    strength for all of them. The images m are the buffer ``memory`` (N, K, C, H, W), which
    ``learner=in_context`` writes. It has no parameters, so nothing is trained, and is what a trained
    generator has to beat: on drawings it is recognised and as diverse as real ones at the same time.
    """

    per_class: ClassVar[tuple[str, ...]] = ()
    head: ClassVar[tuple[str, ...]] = ()
    needs_memory = True
    loss_unit = "squared error"
    memory: Tensor
    spread: Tensor

    @checked
    def __init__(
        self,
        size: Side,
        deviations: Mapping[str, NonNegativeFloat],
        strength: NonNegativeFloat = 1.0,
        contrast: NonNegativeFloat | None = None,
        colours: Colours = 1,
    ) -> None:
        """Build the control for images of ``colours`` x ``size`` x ``size``.

        Args:
            size: H = W.
            deviations: standard deviations of ``turn`` (radians), ``shear``, ``scale`` (logarithm, of width
                and height each) and ``shift`` (half sides, each way).
            strength: s, a factor of all four; 0 copies.
            contrast: with which strokes are resampled; None: 12 of grey images, 0 in colour.
            colours: channels of an image; in colour what lies outside an image is its border repeated, and
                else blank.

        Raises:
            MetagenError: a number is negative, or a deviation is missing.
        """
        super().__init__()
        if set(deviations) != set(STRENGTHS):
            raise MetagenError(f"model.deviations has {sorted(deviations)}: expected {sorted(STRENGTHS)}")
        contrast = (12.0 if colours == 1 else 0.0) if contrast is None else contrast
        turn, shear, scale, shift = (strength * deviations[name] for name in STRENGTHS)
        self.size, self.contrast, self.colours = size, contrast, colours
        self.outside = "zeros" if colours == 1 else "border"
        self.register_buffer("spread", torch.tensor([turn, shear, scale, scale, shift, shift]), False)
        self.register_buffer("memory", torch.zeros(1, 0, colours, size, size), persistent=False)

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean squared difference of pixels to the nearest support image; to blank without any."""
        memory = self.memory if self.memory.shape[1] else self.memory.new_zeros(1, 1, *shots.x.shape[2:])
        memory = memory.expand(len(shots.x), -1, -1, -1, -1)
        gaps = (shots.x[:, :, None] - memory[:, None]).square().mean((-3, -2, -1))
        return gaps.min(-1).values.mean()

    def encode(self, support: Shots) -> Params:
        """Return the support images themselves."""
        return {"memory": support.x}

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Vary one support image for each class index of ``y`` (B,): (B, C, H, W).

        Raises:
            MetagenError: there is no support image.
        """
        shots = self.memory.shape[1]
        if not shots:
            raise MetagenError(
                "model=warp varies support images and has none: use learner=in_context, task.shots=1 or more"
            )
        chosen = (rng.uniform(rng.fold_in(key, 1), tuple(y.shape)) * shots).long()
        numbers = self.spread * rng.normal(rng.fold_in(key, 2), (y.shape[0], 6), self.spread.dtype)
        where = affine(numbers, ENLARGED * self.size)
        return sharply(self.memory[y, chosen], where, self.contrast, self.outside)
