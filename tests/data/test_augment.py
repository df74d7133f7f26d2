import pytest
import torch

from metagen.data import pixels
from metagen.data.augment import RandomAffine, Thicken
from metagen.errors import MetagenError
from metagen.functional import rng

KEYS = rng.fold_in(rng.key(0), torch.arange(3))


def images(seed=0):
    return torch.rand(3, 2, 4, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [RandomAffine, Thicken])
def test_changes_depend_on_the_key_of_their_episode_alone(kind):
    x, change = images(), kind(per="image")
    out = change(x, KEYS)
    assert out.shape == x.shape
    torch.testing.assert_close(change(x[1:2], KEYS[1:2]), out[1:2])
    assert not torch.equal(change(x, KEYS.flip(0)), out)
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("kind", [RandomAffine, Thicken])
@pytest.mark.parametrize(("per", "same"), [("class", True), ("image", False)])
def test_a_class_shares_its_change_or_each_image_has_its_own(kind, per, same):
    one = images()[:, :, :1].expand(3, 2, 4, 1, 28, 28)
    out = kind(per=per)(one, KEYS)
    assert torch.equal(out[:, :, :1].expand_as(out), out) == same
    assert not torch.equal(out[:, :1], out[:, 1:]), "classes differ"


def test_no_spread_is_no_change():
    x = images()
    torch.testing.assert_close(RandomAffine(0, 0, 0, 0)(x, KEYS), x, atol=2e-5, rtol=0)


def test_a_shift_is_a_shift():
    """A translation by whole pixels moves the image by them; scale > 1 shrinks the drawing."""
    x = torch.zeros(1, 1, 1, 1, 28, 28)
    x[..., 10:18, 10:18] = 1
    out = RandomAffine(0, 0, 0, 3.0)(x, KEYS[:1])
    torch.testing.assert_close(out.sum(), x.sum(), rtol=1e-3, atol=0)
    assert not torch.allclose(out, x)


def test_thicken_broadens_a_stroke_and_keeps_paper_white():
    x = torch.zeros(1, 1, 1, 1, 28, 28)
    x[..., 14] = 1
    out = Thicken(2.0, 2.0)(x, KEYS[:1])
    assert out.sum() > 1.5 * x.sum()
    assert (out[..., :10] == 0).all()


def test_bad_arguments():
    for bad in (
        lambda: RandomAffine(turn=-1),
        lambda: Thicken(low=3, high=2),
        lambda: RandomAffine(per="pixel"),
    ):
        with pytest.raises(MetagenError, match=r"low=3|turn=-1|per=pixel"):
            bad()


def test_framed_puts_the_mass_in_the_middle_and_scales_the_box():
    drawing = torch.zeros(2, 105, 105, dtype=torch.uint8)
    drawing[0, 5:45, 60:70] = 255
    out = pixels.framed(drawing, 28)
    assert out.shape == (2, 28, 28)
    rows, columns = ((out[0] > 127).any(axis).nonzero()[:, 0] for axis in (1, 0))
    assert len(rows) == 20
    assert len(columns) == 5
    assert abs(rows.float().mean() - 13.5) <= 0.5
    assert abs(columns.float().mean() - 13.5) <= 0.5
    assert (out[1] == 0).all(), "an empty drawing stays empty"
