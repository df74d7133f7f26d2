"""Aggregation: from what was read in each image of a class to one row for the class."""

import math

from torch import Tensor, nn

from metagen.errors import MetagenError
from metagen.ranges import PositiveInt, Width, checked


class Mean(nn.Module):
    """c = 1/K sum_k r_k (Edwards and Storkey, *Towards a Neural Statistician*, ICLR 2017)."""

    @checked
    def __init__(self, row: PositiveInt) -> None:
        super().__init__()

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (N, K, D) to (N, D)."""
        return rows.mean(1)


class Attention(nn.Module):
    r"""Each head h weighs the images by how they fit the class, and averages its part of the row.

    .. math:: c^h = \sum_k a^h_k r^h_k, \quad a^h = \text{softmax}_k(\bar r W_q^h \cdot r_k W_k^h / \sqrt{d})

    with the mean of the class as the query, so that a row of any number of images has one scale and
    does not depend on their order; at the start it is the mean. After Lee et al., *Set Transformer*,
    ICML 2019, and Kim et al., *Attentive Neural Processes*, ICLR 2019.

    Args:
        row: D, divisible by ``heads``.
        heads: number of heads.
        size: d, length of a head's query and keys.
    """

    @checked
    def __init__(self, row: PositiveInt, heads: Width = 4, size: Width = 32) -> None:
        super().__init__()
        if row % heads:
            raise MetagenError(
                f"model.aggregate.heads={heads}: expected a divisor of the row's {row} numbers"
            )
        self.heads, self.size = heads, size
        self.query, self.key = nn.Linear(row, heads * size), nn.Linear(row, heads * size)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (N, K, D) to (N, D)."""
        query = self.query(rows.mean(1)).unflatten(-1, (1, self.heads, self.size))
        key = self.key(rows).unflatten(-1, (self.heads, self.size))
        weights = ((query * key).sum(-1) / math.sqrt(self.size)).softmax(1)
        return (weights[..., None] * rows.unflatten(-1, (self.heads, -1))).sum(1).flatten(1)
