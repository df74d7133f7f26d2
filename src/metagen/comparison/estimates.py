"""Means, 95 % intervals and tests of paired differences, and corrections for many of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

Array = np.ndarray


class Estimate(NamedTuple):
    """A mean with its uncertainty.

    mean: NaN where a value is undefined: none is ever dropped.
    ci95: half-width of the 95 % interval; None where it is undefined.
    p:    two-sided probability of a mean so far from 0 if it were 0; None where it is undefined. Where all
          values are the same it is that of a sign test, 2^(1-n): two equal seeds show nothing.
    n:    number of values.
    """

    mean: float
    ci95: float | None
    p: float | None
    n: int


def student(values: Array | Sequence[float]) -> Estimate:
    """Return Student's interval and one-sample t-test of ``values`` (n,): of differences, the paired one."""
    return stratified([np.asarray(values, dtype=np.float64)])


def stratified(strata: Sequence[Array]) -> Estimate:
    r"""Return the mean over C strata of their means, with an interval over what is inside of them.

    .. math:: \bar d = \frac{1}{C} \sum_c \bar d_c, \quad
              s^2 = \frac{1}{C^2} \sum_c \frac{s_c^2}{n_c}, \quad \bar d \pm t_{0.975,\nu} s

    with the degrees of freedom of Welch and Satterthwaite (Biometrics Bulletin 2, 1946),
    nu = (sum v_c)^2 / sum v_c^2 / (n_c - 1) for v_c = s_c^2 / n_c; one stratum gives Student's interval.
    The strata, such as ten folds, are taken as given: how they vary has no part in it.

    Args:
        strata: (n_c,) values each.
    """
    sizes = np.array([len(values) for values in strata])
    n = int(sizes.sum())
    if not n or (sizes == 0).any() or not all(np.isfinite(values).all() for values in strata):
        return Estimate(float("nan"), None, None, n)
    mean = float(np.mean([values.mean() for values in strata]))
    if (sizes < 2).any():
        return Estimate(mean, None, None, n)
    parts = np.array([values.var(ddof=1) for values in strata]) / sizes
    deviation = float(np.sqrt(parts.sum())) / len(strata)
    # Equal values leave a deviation of rounding errors; what they show is told by their number alone.
    if deviation <= 1e-12 * abs(mean):
        return Estimate(mean, 0.0, 1.0 if mean == 0 else 0.5 ** (n - 1), n)
    freedom = float(parts.sum() ** 2 / (parts**2 / (sizes - 1)).sum())
    half = float(stdtrit(freedom, 0.975)) * deviation
    return Estimate(mean, half, float(2 * stdtr(freedom, -abs(mean) / deviation)), n)


def holm(tests: Sequence[float | None]) -> list[float | None]:
    """Return the p values of a family of tests, corrected so that any false one is as rare as 5 %.

    Holm: *A simple sequentially rejective multiple test procedure*, Scand. J. Statistics 6, 1979: the i-th
    smallest of m is multiplied by m - i + 1 and made no smaller than those before it. None stays and does
    not count.
    """
    known = sorted((p, index) for index, p in enumerate(tests) if p is not None)
    out: list[float | None] = [None] * len(tests)
    reached = 0.0
    for rank, (p, index) in enumerate(known):
        reached = max(reached, min(1.0, p * (len(known) - rank)))
        out[index] = reached
    return out
