"""What chooses among drawings: ratios of densities against closed forms."""

import math

import pytest
import torch

from metagen.functional import rng
from metagen.models.critic import Critic, Recogniser, chosen


def plain():
    """A recogniser whose embedding is the first pixels."""
    torch.manual_seed(0)
    recogniser = Recogniser(1, 8, 8)
    recogniser.embed = lambda x: x.flatten(1)[:, :48]
    return recogniser


def images(rows):
    """Images of 8 x 8 that begin with the numbers of each row."""
    x = torch.zeros(len(rows), 1, 8, 8)
    x.flatten(1)[:, : len(rows[0])] = torch.tensor(rows)
    return x


def test_a_prototype_is_the_mean_of_the_embeddings_of_a_class():
    memory = images([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [5.0, 8.0]]).unflatten(0, (2, 2))
    assert plain().prototypes(memory)[:, :3].tolist() == [[2, 3, 0], [5, 7, 0]]


def test_the_loss_is_the_cross_entropy_between_the_classes_of_the_episode():
    recogniser, x, m = plain(), images([[0.0], [2.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    m = torch.cat([m, torch.zeros(3, 47)], 1)
    y = torch.tensor([0, 2])
    # distances 0, 1, 9 and 4, 1, 1
    first = math.log(1 + math.exp(-1) + math.exp(-9))
    second = 1 + math.log(math.exp(-4) + 2 * math.exp(-1))
    far = torch.tensor([math.exp(-1) + math.exp(-9), math.exp(-4) + math.exp(-1)]).div(2).log()
    with torch.no_grad():
        error = ((recogniser._of_any(recogniser.embed(x)) - far) / 20).square().mean()
        loss = recogniser.loss(x, y, m, x)
    assert float(loss) == pytest.approx((first + second) / 2 + 2 * float(error), rel=1e-5)


def test_one_class_alone_teaches_nothing():
    recogniser = plain()
    loss = recogniser.loss(images([[1.0]]), torch.tensor([0]), torch.zeros(1, 48), images([[1.0]]))
    assert float(loss) == 0


def test_the_ratio_is_learned_for_where_no_other_class_is_known():
    """Classes at the corners of a square: r is the distance against the mean over the three others."""
    recogniser = plain()
    corners = [[0.0, 0.0], [0.0, 3.0], [3.0, 0.0], [3.0, 3.0]]
    m, y = recogniser.embed(images(corners)), torch.arange(4).repeat(16)
    optimizer = torch.optim.Adam(recogniser.any.parameters(), 3e-3)
    torch.manual_seed(1)
    for _ in range(400):
        x = images(corners).repeat(16, 1, 1, 1)
        x.flatten(1)[:, :2] += 0.3 * torch.randn(64, 2)
        optimizer.zero_grad()
        recogniser.loss(x, y, m, x).backward()
        optimizer.step()
    with torch.no_grad():
        r = recogniser(images(corners), m)
    known = -math.log((2 * math.exp(-9) + math.exp(-18)) / 3)
    assert r.tolist() == pytest.approx([known] * 4, abs=0.7)


def test_a_choice_has_the_probabilities_of_its_logits():
    x = torch.arange(3.0).repeat_interleave(1000)[:, None]
    logits = torch.tensor([1.0, 2.0, 5.0]).log()[:, None].expand(3, 1000)
    counts = torch.bincount(chosen(x, logits, rng.key(0))[:, 0].long(), minlength=3) / 1000
    assert counts.tolist() == pytest.approx([0.125, 0.25, 0.625], abs=0.04)


@pytest.mark.parametrize("size", [4, 8, 12, 28, 32, 64])
@pytest.mark.parametrize("colours", [1, 3])
def test_every_size_has_its_critic(size, colours):
    a, b = torch.rand(2, 5, colours, size, size).unbind()
    assert Critic(colours, size, 8, ink=False)(a, b).shape == (5,)
    recogniser = Recogniser(colours, size, 8)
    assert recogniser(a, recogniser.prototypes(b[:, None])).shape == (5,)
