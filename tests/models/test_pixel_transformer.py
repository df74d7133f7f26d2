"""The transformer over patches: exact, causal, the same in one pass, with a memory, patch by patch."""

import itertools
import math
from functools import partial

import pytest
import torch

from metagen.core.episode import Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.chunked import size_of
from metagen.functional.compiled import compiled
from metagen.models.pixel_transformer import PixelTransformer, _compiled_nll


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tiny(size=4, patch=(2, 2), **kwargs):
    torch.manual_seed(0)
    model = PixelTransformer(
        **{"size": size, "patch": patch, "width": 16, "layers": 2, "heads": 2, "features": 3, **kwargs}
    )
    for p in model.parameters():  # far from uniform
        p.data.add_(0.3 * torch.randn_like(p))
    return model


def images(*shape, seed=0):
    return (rng.uniform(rng.key(seed), shape) > 0.5).double()


def shots(x):
    y = torch.arange(x.shape[0])[:, None].expand(x.shape[:2])
    return Shots(x, y, rng.key(0))


def test_likelihoods_of_all_images_sum_to_one():
    model = tiny(patch=(2, 4))
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=16))).view(1, -1, 1, 4, 4)
    memory = images(1, 2, 1, 4, 4)
    for params in ({}, {"memory": memory}):
        with torch.no_grad():
            parts = [
                Objective(model).call("log_likelihood", params, shots(part)) for part in every.split(4096, 1)
            ]
        assert torch.cat(parts, 1).logsumexp(1).item() == pytest.approx(0, abs=1e-9)


def test_one_pass_equals_a_memory_of_the_images_before():
    model, x = tiny(), images(3, 5, 1, 4, 4)
    whole = model.sequence_nll(x)
    for t in range(5):
        params = {"context": model.context.expand(3, -1), **({"memory": x[:, :t]} if t else {})}
        alone = -Objective(model).call("log_likelihood", params, shots(x[:, t : t + 1]))
        assert torch.allclose(alone[:, 0], whole[:, t], atol=1e-12)


def test_an_image_changes_nothing_before_it_and_something_after_it():
    model, x = tiny(), images(1, 4, 1, 4, 4)
    other = x.clone()
    other[:, 2] = 1 - other[:, 2]
    gap = (model.sequence_nll(x) - model.sequence_nll(other))[0].abs()
    assert gap[:2].max() == 0
    assert gap[2:].min() > 1e-6


def test_patches_and_images_are_inverse():
    model, x = tiny(8, (2, 4)), images(2, 3, 1, 8, 8)
    back = model.patches.image((model._patches(x).flatten(0, 1) + 1) / 2)
    assert torch.equal(back, x.flatten(0, 1))


@pytest.mark.parametrize(("context", "temperature"), [(0, 1.0), (2, 1.0), (2, 0.5)])
def test_samples_follow_the_likelihood(context, temperature):
    """16 images of 2 x 2 pixels: frequencies of 20,000 samples against exact probabilities."""
    model = tiny(2, (1, 2), temperature=temperature)
    params = {"memory": images(1, context, 1, 2, 2)} if context else {}
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).view(1, 16, 1, 2, 2)
    with torch.no_grad():
        p = Objective(model).call("log_likelihood", params, shots(every))[0].exp()
        n = 20_000
        drawn = Objective(model).call("sample", params, torch.zeros(n, dtype=torch.long), rng.key(1))
    p = p.view(4, 4)  # the symbols of the first patch, and of the second
    first, second = p.sum(1) ** (1 / temperature), p ** (1 / temperature)
    p = (first[:, None] / first.sum() * second / second.sum(1, keepdim=True)).flatten()
    number = (drawn.flatten(1).long() * torch.tensor([8, 4, 2, 1])).sum(-1)
    seen = torch.bincount(number, minlength=16) / n
    assert ((seen - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-3).all()
    assert p.max() / p.min() > 2


def test_samples_depend_on_class_and_key_alone():
    model, y = tiny(), torch.tensor([0, 1, 1])
    params = {"memory": images(2, 3, 1, 4, 4), "context": torch.randn(2, 3)}
    call = Objective(model).call
    one, two = (call("sample", params, y, rng.key(k)) for k in (0, 1))
    assert torch.equal(one, call("sample", params, y, rng.key(0)))
    assert not torch.equal(one, two)
    assert set(one.unique().tolist()) <= {0.0, 1.0}


def test_untrained_symbols_costs_784_bits():
    model = PixelTransformer(width=16, layers=1, heads=2)
    torch.nn.init.zeros_(model.symbols.weight)
    torch.nn.init.zeros_(model.symbols.bias)
    loss = model.loss(shots(images(1, 2, 1, 28, 28)))
    assert loss.item() == pytest.approx(784 * math.log(2))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"patch": (3, 4)}, "model.patch"),
        ({"patch": (4, 4), "size": 4}, "at most 12"),
        ({"heads": 3}, "model.heads=3"),
        ({"layers": 0}, "layers=0"),
    ],
)
def test_bad_sizes_are_refused(arguments, words):
    with pytest.raises(MetagenError, match=words) as error:
        tiny(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step():
    model = tiny(second_order=False, compiled=True, layers=1)
    objective, x, found = Objective(model), images(2, 3, 1, 4, 4), []
    for nll in (_compiled_nll(backend="aot_eager", fullgraph=True), PixelTransformer.nll_of_sequences):
        model.sequence_nll = partial(nll, model)
        loss = objective.call("sequence_nll", objective.params(), x).mean()
        found.append((loss, torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-12)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        assert (one is None) == (two is None)
        assert one is None or torch.allclose(one, two, rtol=1e-9, atol=1e-12)


def test_nothing_is_compiled_without_a_compiler(monkeypatch, caplog):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert compiled(len) is len
    assert "nothing is compiled" in caplog.text


@pytest.mark.parametrize(("transformed", "given", "written_out"), [
    (False, None, False), (True, None, True), (False, True, True), (True, False, False),
])  # fmt: skip
def test_attention_is_fused_where_no_step_and_no_vmap_differentiates_it(transformed, given, written_out):
    model = tiny(second_order=given, layers=1)
    model.settle(transformed)
    assert [block.second_order for block in model.blocks] == [written_out]
    assert model.one_by_one is (given is None and not transformed)


def test_a_sequence_keeps_no_scores_of_all_pairs_of_patches_by_default():
    x = images(3, 40, 1, 4, 4)
    kept = {}
    for transformed in (False, True):
        torch.manual_seed(0)
        model = tiny(layers=1)
        model.settle(transformed)
        kept[transformed] = size_of(lambda model=model: model.sequence_nll(x).mean()).largest
        value = model.sequence_nll(x)
    tokens = 40 * model.patches.length
    assert kept[True] >= 3 * 2 * 8 * tokens**2 > 2 * kept[False]  # of 3 classes and 2 heads
    plain = tiny(layers=1)
    plain.load_state_dict(model.state_dict())
    plain.settle(False)
    torch.testing.assert_close(plain.sequence_nll(x), value, rtol=1e-4, atol=1e-4)


def test_without_temperature_the_likeliest_patch_is_drawn_each_time():
    assert len(drawn(tiny(temperature=0.0)).flatten(1).unique(dim=0)) == 1
    assert len(drawn(tiny()).flatten(1).unique(dim=0)) > 1


def drawn(model, count=9):
    params = {"memory": images(1, 2, 1, 4, 4)}
    with torch.no_grad():
        return Objective(model).call("sample", params, torch.zeros(count).long(), rng.key(0))


def test_shades_lie_on_the_side_of_the_same_ink():
    model = tiny(shades=True)
    plain = tiny()
    plain.load_state_dict({n: p for n, p in model.state_dict().items() if not n.startswith("grey")})
    for bias in (-9.0, 0.0, 9.0):  # a net that would paint nothing, or everything
        torch.nn.init.constant_(model.grey[-1].bias, bias)
        x, ink = drawn(model), drawn(plain)
        assert torch.equal((x > 0.5).double(), ink)
        assert 0 < ink.mean() < 1
        assert x.min() >= 0
        assert x.max() <= 1
    assert x.unique().numel() > 2


@pytest.mark.parametrize("way", ["loss", "sequence_nll"])
def test_shades_add_their_cross_entropy_to_the_loss_and_nothing_to_the_likelihood(way):
    model = tiny(shades=True)
    x = images(3, 5, 1, 4, 4) * 0.6 + 0.2
    logits = model.grey(2 * (x > 0.5).double().flatten(0, 1) - 1)
    p = logits.sigmoid().view_as(x)
    shades = -(x * p.log() + (1 - x) * (1 - p).log()).sum((2, 3, 4))
    if way == "sequence_nll":
        torch.testing.assert_close(model.sequence_nll(x), model.nll_of_sequences(x) + shades)
        return
    params = {"context": model.context.expand(3, -1)}
    ink = Objective(model).call("log_likelihood", params, shots(x))
    loss = Objective(model).call("loss", params, shots(x))
    torch.testing.assert_close(loss, (shades - ink).mean())
    assert "cross-entropy" in model.loss_unit


def test_a_network_that_knows_no_shades_may_learn_them():
    assert tiny(shades=True).later == ("grey.*",)
    assert tiny().later == ()
    assert tiny().loss_unit == "nats"
