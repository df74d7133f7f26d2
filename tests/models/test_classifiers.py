from functools import partial

import pytest
import torch
from torch.nn import functional

from metagen.errors import MetagenError
from metagen.jobs.record import batch_statistics
from metagen.models.basenet import BaseNet
from metagen.models.conv4 import Conv4
from metagen.models.layers import BatchStatNorm


def test_batch_stat_norm_equals_torch_batch_norm():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    norm = BatchStatNorm(3).double()
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    want = functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(norm(x), want, rtol=1e-10, atol=1e-12)


def test_conv4_has_the_published_number_of_parameters():
    """Four blocks of 64 filters with batch norm and a linear layer, less the biases that the norms undo."""
    blocks = (9 + 2) * 64 + 3 * ((64 * 9 + 2) * 64)
    assert sum(p.numel() for p in Conv4(5).parameters()) == blocks + 64 * 5 + 5


@pytest.mark.parametrize("kind", [BaseNet, Conv4, partial(Conv4, pool=False)])
def test_shapes(kind):
    assert kind(ways=7).logits(torch.rand(3, 1, 28, 28)).shape == (3, 7)


@pytest.mark.parametrize("pool", [True, False])
def test_inductive_logits_of_an_image_depend_on_no_other_query_image(pool):
    torch.manual_seed(0)
    net, support, x = Conv4(filters=8, pool=pool), torch.rand(5, 1, 28, 28), torch.rand(4, 1, 28, 28)
    together = net.logits(x, support)
    alone = torch.cat([net.logits(image[None], support) for image in x])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(net.logits(x), torch.cat([net.logits(image[None]) for image in x]), atol=1e-3)
    # The support's own logits are those of the adaptation.
    torch.testing.assert_close(net.logits(support, support), net.logits(support))


def test_bad_sizes():
    with pytest.raises(MetagenError, match="from 4 to"):
        BaseNet(size=3)
    with pytest.raises(MetagenError, match="from 16 to"):
        Conv4(size=8)


def test_how_query_images_are_normalised_is_recorded():
    assert batch_statistics(Conv4()) == "transductive"
    assert batch_statistics(Conv4(transductive=False)) == "inductive"
    assert batch_statistics(BaseNet()) is None
