"""Pictures to adapt to."""

import numpy as np

from metagen.data.form import Form
from metagen.demo.adapted import Support


def pictures(count: int, size: int = 28, seed: int = 0) -> np.ndarray:
    """Distinct pictures with a bar in each, uint8 (count, size, size)."""
    out = np.zeros((count, size, size), np.uint8)
    for k in range(count):
        out[k, 4 + k : 7 + k, 4 + seed : -4] = 255
    return out


def support(count: int = 3, seed: int = 0) -> Support:
    return {Form(size): pictures(count, size, seed) for size in (20, 28)}
