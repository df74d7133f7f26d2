import pytest
import torch
from torch.nn import functional

from metagen.errors import MetagenError
from metagen.models.basenet import BaseNet
from metagen.models.conv4 import BatchStatNorm, Conv4


def test_batch_stat_norm_equals_torch_batch_norm():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    norm = BatchStatNorm(3).double()
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    want = functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(norm(x), want, rtol=1e-10, atol=1e-12)


def test_conv4_has_the_published_number_of_parameters():
    """Four blocks of 64 filters with batch norm on one channel, and a linear layer for five ways."""
    blocks = (9 + 1 + 2) * 64 + 3 * ((64 * 9 + 1 + 2) * 64)
    assert sum(p.numel() for p in Conv4(5).parameters()) == blocks + 64 * 5 + 5


@pytest.mark.parametrize("kind", [BaseNet, Conv4])
def test_shapes(kind):
    assert kind(ways=7).logits(torch.rand(3, 1, 28, 28)).shape == (3, 7)


def test_bad_sizes():
    with pytest.raises(MetagenError, match="multiple of 4"):
        BaseNet(size=30)
    with pytest.raises(MetagenError, match="at least 16"):
        Conv4(size=8)
