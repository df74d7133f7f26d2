import pytest
import torch

from metagen.errors import MetagenError
from metagen.models.aggregate import Attention, Mean


def rows():
    return torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trained():
    torch.manual_seed(0)
    attention = Attention(8, heads=2, size=4).double()
    torch.nn.init.normal_(attention.query.weight)
    return attention


def test_attention_starts_as_the_mean():
    torch.testing.assert_close(Attention(8, heads=2).double()(rows()), Mean(8)(rows()))


def test_attention_is_a_weighted_mean_in_any_order():
    x, attention = rows(), trained()
    out = attention(x)
    assert not torch.allclose(out, x.mean(1))
    torch.testing.assert_close(attention(x[:, [3, 1, 4, 0, 2]]), out)
    assert (out <= x.amax(1)).all()
    assert (out >= x.amin(1)).all()


def test_one_image_is_its_class():
    torch.testing.assert_close(trained()(rows()[:, :1]), rows()[:, 0])


def test_attention_equals_pytorch():
    x, attention = rows(), trained()
    split = [
        t.unflatten(-1, (2, -1)).transpose(-2, -3)
        for t in (attention.query(x.mean(1, keepdim=True)), attention.key(x), x)
    ]
    want = torch.nn.functional.scaled_dot_product_attention(*split).transpose(-2, -3).flatten(1)
    torch.testing.assert_close(attention(x), want)


def test_heads_must_divide_the_row():
    with pytest.raises(MetagenError, match="divisor"):
        Attention(9, heads=2)
