import pytest
import torch
from data_samples import toy_bank

from metagen.data import pixels, turned_images
from metagen.data.sampler import EpisodeSampler
from metagen.data.stream import AHEAD, EpisodeStream
from metagen.data.turned_images import Turned, Turning


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("copies", [1, 8])
def test_both_tables_give_the_same_bits(copies, channels):
    images = torch.arange(256 * 25 * channels).remainder(256).byte().reshape(256, channels, 5, 5)
    rows = torch.randint(256, (40, 3), generator=torch.Generator().manual_seed(0))
    symmetry = torch.arange(40) % copies
    turned, turning = (kind(images, copies).take(rows, symmetry) for kind in (Turned, Turning))
    assert torch.equal(turned, turning)
    first = torch.stack(list(pixels.turns(pixels.unit(images[rows[-1]]))))[symmetry[-1]]
    assert torch.equal(turned[-1], first.flatten(1))


def test_a_large_bank_is_turned_when_it_is_asked_for(monkeypatch):
    bank, episodes = toy_bank(), []
    for limit, kind in ((8 * bank.images.numel(), Turned), (8 * bank.images.numel() - 1, Turning)):
        monkeypatch.setattr(turned_images, "LIMIT", limit)
        sampler = EpisodeSampler(bank, bank.names, 3, 1, 2, 0, "train", symmetries=True)
        assert isinstance(sampler._turned, kind)
        episodes.append(sampler.episodes(torch.arange(20)))
    assert torch.equal(episodes[0].query.x, episodes[1].query.x)


@pytest.mark.parametrize(("batch", "total"), [(7, None), (7, 30), (AHEAD + 1, None)])
def test_drawing_ahead_changes_nothing(batch, total):
    bank = toy_bank()
    sampler = EpisodeSampler(bank, bank.names, 3, 1, 2, 0, "train", symmetries=True)
    stream = EpisodeStream(sampler, batch, total)
    steps = (0, 1, 4, 2) if total else (0, AHEAD // batch, 1, AHEAD // batch - 1, 90)
    for step in steps:
        one, other = stream.batch(step), sampler.episodes(stream.indices(step))
        assert len(one.classes) == min(batch, (total or 10**9) - step * batch)
        for a, b in zip(
            (*one.support, *one.query, one.classes),
            (*other.support, *other.query, other.classes),
            strict=True,
        ):
            assert torch.equal(a, b)
