"""Means with their uncertainty, from one number per episode."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Return ``{"mean", "ci95", "n"}`` over n episodes.

    ci95 = t_{0.975, n-1} * s / sqrt(n), the half-width of Student's 95 % interval with the unbiased
    deviation s; None for n = 1, and the mean is NaN for n = 0. An episode without a finite value is
    never dropped (a model that diverged would look better for it): then mean is NaN, ci95 None, and
    a fourth key ``"undefined"`` counts such episodes.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    undefined = int(n - np.isfinite(x).sum())
    if undefined:
        return {"mean": math.nan, "ci95": None, "n": n, "undefined": undefined}
    if n < 2:
        return {"mean": float(x[0]) if n else math.nan, "ci95": None, "n": n}
    half = stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / math.sqrt(n)
    return {"mean": float(x.mean()), "ci95": float(half), "n": n}
