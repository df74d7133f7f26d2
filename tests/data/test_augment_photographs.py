"""Augmentations of photographs beside torchvision's."""

import pytest
import torch
from torchvision.transforms import v2

from metagen.data.augment import RandomAffine, Thicken
from metagen.data.augment_photographs import ColorJitter, Crop, Flip, adjusted, turned
from metagen.errors import MetagenError
from metagen.functional import rng

KEYS = rng.fold_in(rng.key(0), torch.arange(3))
KINDS = [ColorJitter, Flip, Crop, RandomAffine, Thicken]


def images(channels=3, seed=0):
    return torch.rand(3, 2, 4, channels, 12, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_changes_depend_on_the_key_of_their_episode_alone(kind, channels):
    x, change = images(channels), kind(per="image")
    out = change(x, KEYS)
    assert out.shape == x.shape
    torch.testing.assert_close(change(x[1:2], KEYS[1:2]), out[1:2])
    assert not torch.equal(change(x, KEYS.flip(0)), out)
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("kind", [ColorJitter, Crop, RandomAffine])
@pytest.mark.parametrize(("per", "same"), [("class", True), ("image", False)])
def test_a_class_shares_its_change_or_each_image_has_its_own(kind, per, same):
    one = images()[:, :, :1].expand(3, 2, 4, 3, 12, 12)
    out = kind(per=per)(one, KEYS)
    assert torch.equal(out[:, :, :1].expand_as(out), out) == same
    assert not torch.equal(out[:, :1], out[:, 1:]), "classes differ"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_colours_are_torchvisions(factor, channels):
    x, one, f = images(channels).flatten(0, 2), torch.ones(24, 1, 1, 1), torch.full((24, 1, 1, 1), factor)
    close = {"atol": 2e-3, "rtol": 0}  # whose luma weights add up to 0.9999
    torch.testing.assert_close(adjusted(x, f, one, one), v2.functional.adjust_brightness(x, factor), **close)
    torch.testing.assert_close(adjusted(x, one, f, one), v2.functional.adjust_contrast(x, factor), **close)
    torch.testing.assert_close(adjusted(x, one, one, f), v2.functional.adjust_saturation(x, factor), **close)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_is_torchvisions(turns):
    x = images().flatten(0, 2)
    x[0] = 0.3  # grey stays grey
    x[1, :, 0, 0] = torch.tensor([0.9, 0.9, 0.1])
    expected = v2.functional.adjust_hue(x, turns)
    torch.testing.assert_close(turned(x, torch.full((24, 1, 1, 1), turns)), expected, atol=1e-5, rtol=0)


def test_flip_mirrors_its_share():
    x = images()[:1].expand(200, 2, 4, 3, 12, 12)
    out = Flip(0.3)(x, rng.fold_in(rng.key(1), torch.arange(200)))
    mirrored = (out == x.flip(-1)).flatten(3).all(-1)
    assert ((out == x).flatten(3).all(-1) | mirrored).all()
    assert 0.26 < mirrored.float().mean() < 0.34
    assert torch.equal(Flip(1.0)(images(), KEYS), images().flip(-1))


def test_crop_moves_by_whole_pixels_each_way():
    x = torch.zeros(1, 1, 400, 1, 9, 9)
    x[..., 4, 4] = 1
    out = Crop(2)(x, KEYS[:1]).flatten(0, 3)
    places = {tuple(place) for place in out.nonzero()[:, 1:].tolist() if len(place) == 2}
    assert out.sum() == 400
    assert places == {(i, j) for i in range(2, 7) for j in range(2, 7)}
    assert torch.equal(Crop(0)(images(), KEYS), images())


def test_no_change_is_none():
    torch.testing.assert_close(ColorJitter(0, 0, 0, 0)(images(), KEYS), images(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: ColorJitter(-1),
        lambda: ColorJitter(hue=0.6),
        lambda: Flip(2),
        lambda: Crop(-1),
        lambda: Crop(1.5),
    ],
)
def test_bad_arguments(bad):
    with pytest.raises(MetagenError, match=r"brightness=-1|hue=0.6|p=2|padding=-1|padding=1.5"):
        bad()
    with pytest.raises(MetagenError, match="lower it"):
        Crop(12)(images(), KEYS)


def test_a_warped_photograph_has_no_black_corners():
    white = torch.ones(3, 2, 4, 3, 12, 12)
    assert RandomAffine(0.5, per="image")(white, KEYS).min() < 0.5
    for padding in ("border", "reflection"):
        assert RandomAffine(0.5, per="image", padding=padding)(white, KEYS).min() > 0.999
    with pytest.raises(MetagenError, match="padding=mirror"):
        RandomAffine(padding="mirror")
