"""The result of one run that has adapted to a few images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metagen.data.form import Form

Support = Mapping[Form, np.ndarray]
"""The images of one class by their form: uint8 (K, H, W), ink = 255, or (K, H, W, 3) in colour."""


@dataclass(frozen=True)
class AdaptationPoint:
    """Where an adaptation stood after ``step`` steps; ``samples`` are uint8 (STRIP, H, W[, 3])."""

    step: int
    samples: np.ndarray


@dataclass(frozen=True)
class Adapted:
    """What one run made of a support set.

    label, folder: the run's.
    support:  uint8 (K, H, W), or (K, H, W, 3) in colour, as all images.
    steps:    how many were taken.
    points:   at 0, 1, 2, 5, 10, ... steps, the last one included; none, if no step was taken.
    losses:   L(phi_i; support) for i = 0 ... steps, or nothing where it has no meaning.
    samples:  uint8 (n, H, W), after the last step.
    nearest:  (n,) which support image is nearest to each sample, in Euclidean distance over pixels.
    distance: (n,) how near, with pixels in [0, 1].
    apart:    mean distance of a support image to the nearest other one, or None if there is one only.
    takes_steps: whether the learner does.
    seconds:  of adaptation and drawing.
    """

    label: str
    folder: str
    support: np.ndarray
    steps: int
    points: Sequence[AdaptationPoint]
    losses: Sequence[float]
    samples: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray
    apart: float | None
    takes_steps: bool
    seconds: float


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of uint8 images (n, ...) and (K, ...), pixels in [0, 1]: (n, K)."""
    x, y = (images.reshape(len(images), -1) / 255.0 for images in (a, b))
    return np.sqrt(np.square(x[:, None] - y[None]).sum(-1))
