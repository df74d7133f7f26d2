"""The pen that draws patch by patch: exact probabilities, samples that follow them, greys that keep ink."""

import itertools

import pytest
import torch

from metagen.functional import rng
from metagen.models.autoregressive_pen import AutoregressivePen
from metagen.models.patches import Patches

S = 4


def pen(**kwargs):
    torch.manual_seed(0)
    made = AutoregressivePen(S, 3, 8, **{"layers": 2, "heads": 2, **kwargs})
    for p in made.parameters():  # far from uniform
        p.data.mul_(3.0)
    return made.eval()


def given(count):
    generator = torch.Generator().manual_seed(1)
    c, f = torch.rand(1, 1, S, S, generator=generator), torch.randn(1, 3, generator=generator)
    return c.expand(count, -1, -1, -1), f.expand(count, -1)


def of_all(model):
    """Log-probabilities of the two patches of an image, (256, 256)."""
    symbols = torch.arange(256)
    first, second = symbols.repeat_interleave(256), symbols.repeat(256)
    pairs = torch.stack([model.patches.of_symbols(s) for s in (first, second)], 1).float()
    found = []
    for part in model.patches.image((pairs + 1) / 2).split(8192):
        with torch.no_grad():
            grey = torch.nn.functional.binary_cross_entropy_with_logits(
                model.grey(2 * (part > 0.5).to(part) - 1), part, reduction="none"
            )
            found.append(grey.sum((1, 2, 3)) - model(part, *given(len(part))))
    return torch.cat(found).double().reshape(256, 256)


def test_what_a_patch_holds_is_a_rectangle_of_its_image():
    patches, x = Patches(8, (2, 4)), torch.arange(2.0 * 64).reshape(1, 2, 8, 8)
    parts = patches.parts(x)
    assert parts.shape == (1, 8, 16)
    for number, (row, column) in enumerate(itertools.product(range(4), range(2))):
        block = x[0, :, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4]
        assert torch.equal(parts[0, number], block.flatten())
    ink = torch.where(x[:, :1] % 3 > 0.5, 1.0, 0.0)
    assert torch.equal(patches.image((patches.split(ink) + 1) / 2), ink)
    assert torch.equal(patches.of_symbols(patches.symbols(patches.split(ink)[0])), patches.split(ink)[0])


def test_a_window_knows_what_was_drawn_before_and_no_more():
    patches = Patches(8, (2, 4))
    whole = torch.randn(2, 8, 8)
    for known in range(8):
        later = torch.cat([whole[:, :known], torch.randn(2, 8 - known, 8)], 1)
        expected = patches.window(later)[:, known : known + 1]
        assert torch.equal(patches.next_window(whole[:, :known]), expected)


def test_probabilities_of_all_images_sum_to_one_and_samples_follow_them():
    model = pen()
    log_p = of_all(model)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)
    count = 6000
    with torch.no_grad():
        x = model.sample(*given(count), rng.key(5))
    symbols = model.patches.symbols(model.patches.split(x))
    seen = log_p[symbols[:, 0], symbols[:, 1]]
    expected, spread = (log_p.exp() * log_p).sum(), (log_p.exp() * log_p.square()).sum()
    deviation = (spread - expected.square()).sqrt() / count**0.5
    assert expected > -0.9 * torch.log(torch.tensor(65536.0)), "far from uniform"
    assert float((seen.mean() - expected).abs()) < 4 * float(deviation)
    top = log_p.logsumexp(1).exp().max(0)
    share = (symbols[:, 0] == top.indices).double().mean()
    assert float(share) == pytest.approx(float(top.values), abs=4 * (0.25 / count) ** 0.5)


def test_without_temperature_the_likeliest_patch_is_drawn_each_time():
    model = pen()
    log_p = of_all(model)
    with torch.no_grad():
        x = model.sample(*given(7), rng.key(5), 0.0)
    symbols = model.patches.symbols(model.patches.split(x))
    first = log_p.logsumexp(1).argmax()
    assert symbols.tolist() == [[int(first), int(log_p[first].argmax())]] * 7


def test_greys_lie_on_the_side_of_their_ink():
    model = pen()
    for bias in (-9.0, 9.0):  # a net that would paint everything, or nothing
        torch.nn.init.constant_(model.grey[-1].bias, bias)
        with torch.no_grad():
            x = model.sample(*given(50), rng.key(5))
        assert 0.05 < (x > 0.5).float().mean() < 0.95
        assert x.min() >= 0
        assert x.max() <= 1
