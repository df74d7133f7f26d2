import itertools

import pytest
import torch
from scipy.stats import chisquare

from metagen.data.draw import distinct
from metagen.functional import rng


def keys(n, seed=0):
    return rng.fold_in(rng.key(seed), torch.arange(n))


@pytest.mark.parametrize(("n", "k"), [(5, 3), (3, 3), (4, 1), (6, 2)])
def test_every_ordered_tuple_is_equally_likely(n, k):
    draws = distinct(keys(60_000), torch.tensor(n), k)
    code = (draws * torch.tensor([n**i for i in range(k)])).sum(-1)
    tuples = [sum(v * n**i for i, v in enumerate(t)) for t in itertools.permutations(range(n), k)]
    counts = torch.bincount(code, minlength=n**k)[tuples]
    assert counts.sum() == 60_000
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_distinct_within_ragged_bounds():
    n = torch.randint(20, 6000, (500, 5), generator=torch.Generator().manual_seed(0))
    n[:, 0] = 20
    draws = distinct(rng.fold_in(keys(500).unsqueeze(-1), torch.arange(5)), n, 20)
    assert draws.shape == (500, 5, 20)
    assert (draws >= 0).all()
    assert (draws < n.unsqueeze(-1)).all()
    ordered = draws.sort(-1).values
    assert (ordered.diff() > 0).all()
    assert torch.equal(ordered[:, 0], torch.arange(20).expand(500, 20))  # all there are


def test_a_draw_depends_on_its_key_alone():
    n = torch.tensor(1000)
    assert torch.equal(distinct(keys(9), n, 7)[4:5], distinct(keys(9)[4:5], n, 7))
    assert torch.equal(distinct(keys(9)[4], n, 7), distinct(keys(9), n, 7)[4])


def test_nothing_to_draw():
    assert distinct(keys(3), torch.tensor(5), 0).shape == (3, 0)


def test_the_set_is_floyds():
    """His algorithm, one number after the other, on the same random bits."""
    n, k = 20, 16
    for key in keys(50):
        words, taken = [b & (2**63 - 1) for b in rng.bits(key, (k,)).tolist()], set()
        for j, word in zip(range(n - k, n), words, strict=True):
            t = word % (j + 1)
            taken.add(j if t in taken else t)
        assert set(distinct(key, torch.tensor(n), k).tolist()) == taken
