"""Exact draws without replacement whose cost does not grow with the population."""

import numpy as np
import torch
from torch import Tensor

from metagen.functional import rng

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
    # NumPy's small operations cost a third of torch's, and its sort of a few numbers does, too.
    picks, over = (x.expand_as(tries).movedim(-1, 0).contiguous().numpy() for x in (tries, tops))
    for i in range(k):
        taken = (picks[:i] == picks[i : i + 1]).any(0, keepdims=True)
        np.copyto(picks[i : i + 1], over[i : i + 1], where=taken)
    order = torch.from_numpy(words[..., k:].numpy().argsort(-1))
    return torch.from_numpy(picks).movedim(0, -1).gather(-1, order)
