"""What a classifier gains from samples: what the support lacks, or what is wrong."""

import math

import pytest
import torch
from torch import nn

from metagen.core.episode import Shots
from metagen.core.metric import Outcome
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.metrics.augmentation import Augmentation, ConvNet
from metagen.metrics.fitted import fit

S = 16
QUICK = {"steps": 40, "batch": 16, "width": 8, "lr": 1e-2}
PLACES = torch.arange(2, S - 2)


def bars(places, ways=2):
    """An upright bar at each of the places, a level one, and so on with other lengths: (ways, P, 1, S, S)."""
    x = torch.zeros(ways, len(places), 1, S, S)
    for n in range(ways):
        long = S - 4 * (n // 2)
        for k, place in enumerate(places):
            image = x[n, k, 0] if n % 2 == 0 else x[n, k, 0].T
            image[:long, place] = 1
    return x


def outcome(support, query, samples=None, key=0):
    def shots(x):
        return Shots(x, torch.arange(len(x))[:, None].expand(x.shape[:2]), rng.key(key))

    labels = torch.arange(len(support))
    return Outcome(shots(support), shots(query), labels, torch.tensor(0.0), samples=samples)


SEEN = outcome(bars([3]), bars(PLACES), bars(PLACES))


def test_samples_that_show_the_classes_teach_them_and_exchanged_ones_teach_the_contrary():
    metric = Augmentation(**QUICK, share=0.0)
    assert metric(SEEN) == 100
    assert metric(SEEN._replace(samples=SEEN.samples.flip(0))) == 0


def test_the_support_alone_is_what_to_beat():
    control = Augmentation("support", **QUICK)
    assert (control.name, control.needs_samples) == ("augmentation_support", False)
    one, other = control(SEEN._replace(samples=None)), control(SEEN._replace(samples=SEEN.samples.flip(0)))
    assert one == other < 100, "samples are not looked at"
    assert "of the support" in control.about
    taught = outcome(bars(PLACES), bars(PLACES))
    assert control(taught) == 100


def test_real_images_have_their_share_of_every_batch(monkeypatch):
    seen = []
    forward = ConvNet.forward

    def watched(self, x):
        if self.training:
            seen.append(int((x.flatten(1).amax(1) > 0.75).sum()))
        return forward(self, x)

    monkeypatch.setattr(ConvNet, "forward", watched)
    Augmentation(**{**QUICK, "steps": 3}, share=0.25)(SEEN._replace(samples=0.5 * SEEN.samples))
    assert seen == [4, 4, 4]


def test_many_classes_of_any_size_and_colour():
    x = bars(PLACES, 4)[..., 1:, 2:].expand(-1, -1, 3, -1, -1)
    found = Augmentation(**{**QUICK, "steps": 120})(outcome(x[:, ::3], x[:, 1::3].double(), x.double()))
    assert found > 90


def test_the_figure_is_a_function_of_the_seed_and_the_episode():
    # Lines are not seen in training, so that the guesses of an untrained net differ with its weights.
    episode = outcome(bars([3], 6), bars(PLACES, 6), bars(PLACES, 6))
    quick = {**QUICK, "steps": 12}
    before = torch.get_rng_state()
    with torch.no_grad():  # as in a test
        found = [Augmentation(**quick, seed=seed)(episode) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(before, torch.get_rng_state())
    assert found[0] == found[1]
    assert len(set(found)) > 1
    others = [Augmentation(**quick)(episode._replace(support=episode.support.at(i))) for i in range(3)]
    assert len({found[0], *others}) > 1, "every episode has an initialisation of its own"


def test_what_cannot_be_measured_is_undefined_or_refused():
    metric = Augmentation(**{**QUICK, "steps": 1})
    one = outcome(bars([3], 1), bars(PLACES, 1), bars(PLACES, 1))
    assert math.isnan(metric(one))
    bad = SEEN.samples.clone()
    bad[0, 0, 0, 0, 0] = math.nan
    assert math.isnan(metric(SEEN._replace(samples=bad)))
    with pytest.raises(MetagenError, match="needs samples"):
        metric(SEEN._replace(samples=None))
    for wrong in ({"steps": 0}, {"batch": 1}, {"share": 1.5}, {"smoothing": 1.0}, {"images": "real"}):
        with pytest.raises(MetagenError, match=next(iter(wrong))):
            Augmentation(**wrong)


def test_fit_finds_the_least_squares_and_hands_over_a_network_for_use():
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Dropout(0.0))
    weights = torch.tensor([[1.5, -0.5]])
    assert fit(net, lambda: (net(x) - x @ weights.T).square().mean(), 400, 0.1, "line") is net
    assert net[0].weight.detach().numpy() == pytest.approx(weights.numpy(), abs=0.01)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
