"""Statistics of paired differences against scipy on the same arrays, and Holm against its definition."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from metagen.comparison.estimates import holm, stratified, student

random = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 30])
def test_student_is_the_paired_t_test(n):
    a, b = random.normal(1.0, 2.0, (2, n))
    found, oracle = student(a - b), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    low, high = oracle.confidence_interval(0.95)
    assert (found.mean - found.ci95, found.mean + found.ci95) == pytest.approx((low, high))
    assert found.n == n


def test_two_strata_are_welchs_test():
    """The mean of the means of a and -b is half the difference of the means of a and b."""
    a, b = random.normal(1.0, 1.0, 12), random.normal(0.0, 5.0, 7)
    found, oracle = stratified([a, -b]), stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    low, high = oracle.confidence_interval(0.95)
    assert 2 * (found.mean - found.ci95) == pytest.approx(low)
    assert 2 * (found.mean + found.ci95) == pytest.approx(high)


def test_strata_do_not_see_how_folds_differ():
    inside = random.normal(0.0, 1.0, 20)
    near, far = stratified([inside, inside]), stratified([inside, inside + 100])
    assert near.ci95 == pytest.approx(far.ci95)
    assert far.mean == pytest.approx(near.mean + 50)


@pytest.mark.parametrize("n", [2, 6])
def test_equal_values_are_a_sign_test(n):
    found = student([5.0] * n)
    assert found.ci95 == 0
    assert found.p == pytest.approx(stats.binomtest(n, n).pvalue)
    assert student([0.0] * n).p == 1


def test_what_is_undefined_stays_so():
    assert math.isnan(student([1.0, math.nan]).mean)
    assert student([1.0, math.nan]).p is None
    assert student([3.0]) == (3.0, None, None, 1)
    assert math.isnan(student([]).mean)


def closed(tests, index):
    """Holm is the closed test of Bonferroni: the largest corrected p of any intersection with ``index``."""
    rest = [i for i in range(len(tests)) if i != index]
    subsets = ([index, *more] for k in range(len(rest) + 1) for more in combinations(rest, k))
    return max(min(1.0, len(part) * min(tests[i] for i in part)) for part in subsets)


def test_holm_is_the_closed_test_of_bonferroni():
    tests = [0.01, 0.04, 0.03, 0.005, 0.04, 0.9, 1e-6]
    assert holm(tests) == pytest.approx([closed(tests, i) for i in range(len(tests))])


def test_holm_leaves_out_what_has_no_test():
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([]) == []
