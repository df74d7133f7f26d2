"""Exact draws without replacement whose cost does not grow with the population."""

import torch
from torch import Tensor

from metagen import rng

_POSITIVE = 2**63 - 1


def distinct(key: Tensor, n: Tensor, k: int) -> Tensor:
    """Draw k distinct integers below n, every ordered k-tuple being equally likely.

    Floyd's algorithm (Bentley and Floyd, *A sample of brilliance*, CACM 1987) picks the set: for
    j = n-k .. n-1 draw t from 0..j, and take j where t is taken already. A shuffle orders it. The
    remainder of 63 random bits stands for a uniform integer, biased by less than n / 2^63.

    Args:
        key: (B...) int64.
        n: int64, broadcastable to (B...), every entry at least k.
        k: how many.

    Returns:
        (B..., k) int64.
    """
    words = rng.bits(key, (2 * k,)) & _POSITIVE
    tops = n.unsqueeze(-1) - k + torch.arange(k)
    tries = words[..., :k] % (tops + 1)
    tops = tops.expand_as(tries)
    picks = torch.empty_like(tries)
    for i in range(k):
        taken = (picks[..., :i] == tries[..., i : i + 1]).any(-1)
        picks[..., i] = torch.where(taken, tops[..., i], tries[..., i])
    return picks.gather(-1, words[..., k:].argsort(-1))
