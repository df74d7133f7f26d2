"""The hypernetwork: what it writes, against closed forms, and that it learns to write it."""

from copy import deepcopy
from fnmatch import fnmatch

import pytest
import torch
from conftest import build_pair, composed, random_episodes, rest_slow
from hydra.utils import instantiate
from torch import nn
from torch.func import functional_call

from metagen.core.episode import Episode, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional.vectorize import loop, vmap
from metagen.learners.hypernet import HyperNet, SetReader
from metagen.learners.modulations import FilmModulation, LowRankModulation, layers_of
from metagen.models.layers import BatchStatNorm, Conv2d, ConvTranspose2d
from metagen.training.module import Experiment

LEARNERS = ["hypernet", "hypernet_lora"]
MODELS = ["conv4", "basenet", "vae"]
E = 6


def one(shots):
    return Shots(*(field[0] for field in shots))


def shaken(module, by=0.1):
    """The same module with heads that write something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn(p.shape, dtype=p.dtype, generator=generator))
    return module


def pair(model, learner, **how):
    model, learner, objective = build_pair(model, learner, **how)
    return model, shaken(learner, 0.02), objective


def encoder_of(model):
    return {n for n, _ in model.named_parameters() if any(fnmatch(n, e) for e in model.encoder)}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("model", MODELS)
def test_untrained_it_writes_theta_and_rows_around_their_mean(model, learner):
    model, learner, objective = build_pair(model, learner)
    theta, support = objective.params(), one(random_episodes().support)
    phi = learner.adapt(objective, theta, support)
    assert phi.keys() == theta.keys()
    for name, p in theta.items():
        if name not in model.per_class:
            assert torch.equal(phi[name], p), name
            continue
        head = learner.start.rows[name.replace(".", "/")]
        row = p.mean(0) + head(learner.start.reader(support.x)).reshape(3, *p.shape[1:])
        torch.testing.assert_close(phi[name], row)


@pytest.mark.parametrize("model", MODELS)
def test_low_rank_changes_all_that_the_loss_reads_and_film_all_but_what_a_norm_undoes(model):
    for name, extra in (("hypernet", []), ("hypernet_lora", ["learner.start.modulation.rank=1"])):
        net, learner, objective = pair(model, name, extra=extra)
        theta = objective.params()
        phi = learner.adapt(objective, theta, one(random_episodes().support))
        kept = {n for n in theta if phi[n].shape == theta[n].shape and torch.equal(phi[n], theta[n])}
        before_norm = {n for n in theta if n.endswith("conv.weight") and f"{n[:-6]}bias" not in theta}
        assert kept == encoder_of(net) | (before_norm if name == "hypernet" else set())


LAYERS = {
    "linear": (nn.Linear(5, 4), (7, 5)),
    "conv": (Conv2d(3, 4, 3, padding=1), (2, 3, 6, 6)),
    "transposed": (ConvTranspose2d(3, 4, 4, 2, 1), (2, 3, 6, 6)),
    "norm": (BatchStatNorm(4), (5, 4, 3, 3)),
    "1d": (nn.Conv1d(3, 4, 3), (2, 3, 8)),
}


def modulated(modulation, layer):
    """One layer under a shaken modulation: old and new parameters, and the numbers that were written."""
    layer = shaken(deepcopy(layer).double())
    params = dict(layer.named_parameters())
    modulation.bind(layers_of(layer, params), E)
    modulation = shaken(modulation.double())
    e = torch.randn(E, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (head,) = modulation.heads.values()
    return params, modulation(e, params), head(e)


@pytest.mark.parametrize("name", LAYERS)
def test_film_scales_and_shifts_the_output(name):
    layer, shape = LAYERS[name]
    params, changed, numbers = modulated(FilmModulation(), layer)
    x = torch.randn(shape, dtype=torch.float64)
    channels = (1, 4, *[1] * (len(shape) - 2))
    gamma, beta = (part.reshape(channels) for part in numbers.chunk(2))
    assert min(gamma.abs().min(), beta.abs().min()) > 1e-3
    y, new = functional_call(layer, params, x), functional_call(layer, changed, x)
    torch.testing.assert_close(new, (1 + gamma) * y + beta, rtol=1e-12, atol=1e-12)


def test_film_leaves_a_layer_without_a_bias_to_the_norm_after_it():
    net = nn.Sequential(Conv2d(3, 4, 3, bias=False), BatchStatNorm(4), nn.RMSNorm(5))
    film = FilmModulation()
    film.bind(layers_of(net, dict(net.named_parameters())), E)
    assert [(layer.weight, film.numbers(layer)) for layer in film.layers] == [
        ("1.weight", 8),
        ("2.weight", 5),
    ]
    shaken(film)
    assert film(torch.ones(E), dict(net.named_parameters())).keys() == {"1.weight", "1.bias", "2.weight"}


WIDE = {
    "linear": (nn.Linear(20, 12), (7, 20)),
    "conv": (Conv2d(6, 12, 3, padding=1, bias=False), (2, 6, 5, 5)),
    "transposed": (ConvTranspose2d(6, 12, 4, 2, 1), (2, 6, 5, 5)),
}


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", WIDE)
def test_low_rank_adds_its_product(name, rank):
    layer, shape = WIDE[name]
    scale = 0.5
    params, changed, numbers = modulated(LowRankModulation(rank, scale), layer)
    axis = 1 if name == "transposed" else 0
    update = (changed["weight"] - params["weight"]).movedim(axis, 0).flatten(1)
    assert torch.linalg.matrix_rank(update, rtol=1e-9) == rank
    outputs, inputs = update.shape
    v, u, beta = numbers.split([rank * inputs, rank * outputs, numbers.numel() - rank * (inputs + outputs)])
    # The output's change is U (V^T x), by the layer itself: V^T and U are layers of r and O outputs.
    product = scale / (rank * inputs**0.5) * torch.einsum("or,ri->oi", u.view(-1, rank), v.view(rank, -1))
    torch.testing.assert_close(update, product, rtol=1e-9, atol=1e-12)
    x = torch.randn(shape, dtype=torch.float64)
    down = v.view(rank, *[n for i, n in enumerate(layer.weight.shape) if i != axis]).movedim(0, axis)
    seen = functional_call(layer, {"weight": down, **({"bias": v.new_zeros(rank)} if len(beta) else {})}, x)
    change = scale / (rank * inputs**0.5) * torch.einsum("or,br...->bo...", u.view(-1, rank), seen)
    if len(beta):
        change = change + beta.reshape(-1, *[1] * (x.dim() - 2))
    y, new = functional_call(layer, params, x), functional_call(layer, changed, x)
    torch.testing.assert_close(new - y, change, rtol=1e-9, atol=1e-12)


def test_low_rank_is_film_where_it_would_not_pay():
    for layer, _ in (LAYERS["norm"], (ConvTranspose2d(6, 1, 4, 2, 1), None)):
        _, film, _ = modulated(FilmModulation(), layer)
        _, low, _ = modulated(LowRankModulation(2), layer)
        assert all(torch.equal(film[n], low[n]) for n in film)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("learner", "share"), [("hypernet", 0.005), ("hypernet_lora", 0.08)])
def test_few_numbers_are_written(model, learner, share):
    cfg = composed(f"model={model}", f"learner={learner}", "data=mnist", "task.ways=5")
    model, learner = instantiate(cfg.model), instantiate(cfg.learner)
    objective = Objective(model)
    learner.bind(objective, 5)
    rest = objective.params().keys() - encoder_of(model) - set(model.per_class)
    written = sum(head.out_features for head in learner.start.modulation.heads.values())
    assert 0 < written < share * sum(objective.params()[n].numel() for n in rest)
    assert all(learner.start.modulation.numbers(layer) < layer.shape.numel() or len(layer.shape) == 1
               for layer in learner.start.modulation.layers)  # fmt: skip


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("model", MODELS)
def test_classes_and_images_may_come_in_any_order(model, learner):
    model, learner, objective = pair(model, learner)
    support = one(random_episodes(shots=3).support)
    order = torch.tensor([2, 0, 1])
    phi, moved, shuffled = (
        learner.adapt(objective, objective.params(), support._replace(x=x))
        for x in (support.x, support.x[order], support.x[:, order])
    )
    for name in phi:
        rows = phi[name][order] if name in model.per_class else phi[name]
        torch.testing.assert_close(moved[name], rows, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(shuffled[name], phi[name], rtol=1e-9, atol=1e-12)
    for name in model.per_class:
        assert (phi[name][0] - phi[name][1]).abs().max() > 1e-4, "every class has a row of its own"
    other = learner.adapt(objective, objective.params(), one(random_episodes(seed=9).support))
    layer = learner.start.modulation.layers[0].weight
    assert (phi[layer] - other[layer]).abs().max() > 1e-6, "every task has layers of its own"


def gradient(over, learner, objective, episodes):
    params = objective.params()
    leaves = [*params.values(), *learner.parameters()]
    loss = over(lambda episode: learner.meta_loss(objective, params, episode))(episodes).mean()
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("model", MODELS)
def test_vmap_equals_loop_where_tasks_have_weights_of_their_own(model, learner):
    _, learner, objective = pair(model, learner)
    slow, fast = (gradient(over, learner, objective, random_episodes()) for over in (loop, vmap))
    assert (fast - slow).norm() < 1e-10 * slow.norm()


def test_threads_equal_the_whole():
    def gradient_of(**how):
        model, learner, _ = pair("vae", "hypernet_lora")
        experiment = Experiment(model, learner, optimizer=None, classes=8, **how)
        experiment.meta_loss(random_episodes(tasks=3)).backward()
        return torch.cat([p.grad.flatten() for p in experiment.parameters() if p.grad is not None])

    whole, parts = gradient_of(vectorize="loop"), gradient_of(chunk=1, workers=2)
    assert (parts - whole).norm() < 1e-10 * whole.norm()


@pytest.mark.parametrize("learner", rest_slow(LEARNERS, ["hypernet"]))
@pytest.mark.parametrize("model", rest_slow(["conv4", "vae"], ["conv4"]))
def test_it_learns_to_read_the_support_set_where_theta_is_fixed(model, learner):
    _, learner, objective = build_pair(model, learner)
    theta = {n: p.detach() for n, p in objective.params().items()}
    start = {n: p.detach().clone() for n, p in learner.named_parameters()}
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    episodes = random_episodes(tasks=4)

    def loss(support):
        batch = episodes._replace(support=support)
        return vmap(lambda e: learner.meta_loss(objective, theta, e))(batch).mean()

    untrained = loss(episodes.support).item()
    for _ in range(25):
        optimizer.zero_grad()
        loss(episodes.support).backward()
        assert all(p.grad.isfinite().all() for p in learner.parameters())
        optimizer.step()
    own = loss(episodes.support).item()
    others = loss(episodes.support._replace(x=episodes.support.x.roll(1, 0))).item()
    # The noise of the images is worth 543 nats to whoever knows no more of them than their mean.
    assert own < (0.1 if model == "conv4" else 543.2) < untrained
    assert own < others, "what it writes for another task does not do"
    assert all(p.grad.abs().max() > 0 for p in learner.parameters())
    assert all(not torch.equal(p, start[n]) for n, p in learner.named_parameters())


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("model", MODELS)
def test_any_number_of_ways_fits(model, learner):
    model, learner, objective = pair(model, learner, ways=3)
    for ways in (1, 2, 7):
        episode = Episode(*(one(part) for part in random_episodes(ways=ways)[:2]), torch.arange(ways))
        phi = learner.adapt(objective, objective.params(), episode.support)
        assert all(phi[name].shape[0] == ways for name in model.per_class)
        assert learner.meta_loss(objective, objective.params(), episode).isfinite()


def test_bound_again_it_keeps_what_it_has_learned_for_this_model_alone():
    _, learner, objective = pair("vae", "hypernet_lora")
    before = {n: p.clone() for n, p in learner.state_dict().items()}
    learner.bind(objective, 8)
    assert all(torch.equal(p, before[n]) for n, p in learner.state_dict().items())
    learner.bind(build_pair("conv4", "maml")[2], 8)
    assert set(learner.start.rows) == {"readout/weight", "readout/bias"}
    assert all(head.startswith("body/") for head in learner.start.modulation.heads)


def test_patterns_choose_the_layers():
    _, learner, objective = pair(
        "vae", "hypernet", extra=["learner.start.changes=[decoder.*,prior.2.weight]"]
    )
    theta = objective.params()
    phi = learner.adapt(objective, theta, one(random_episodes().support))
    changed = {n for n in theta if phi[n] is not theta[n]}
    assert changed == {
        *(n for n in theta if n.startswith("decoder.") and not n.endswith("conv.weight")),
        *("prior.2.weight", "prior.2.bias", "context"),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HyperNet(FilmModulation(), size=0), "size=0"),
        (lambda: HyperNet(FilmModulation(), embedding=-1), "embedding=-1"),
        (lambda: HyperNet(FilmModulation(), changes="head"), "changes=head.*patterns"),
        (lambda: LowRankModulation(rank=0), "rank=0"),
        (lambda: LowRankModulation(scale=0.0), "scale=0"),
        (
            lambda: build_pair("vae", "hypernet", extra=["learner.start.changes=[nothing]"]),
            "nothing.*use learner",
        ),
        (
            lambda: build_pair("conv4", "hypernet", extra=["learner.start.changes=[body.*.conv.*]"]),
            "FilmModulation can change",
        ),
    ],
)
def test_bad_arguments_get_one_line(make, message):
    with pytest.raises(MetagenError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_images_of_another_size_get_one_line():
    _, learner, objective = build_pair("vae", "hypernet", images=(1, 16))
    with pytest.raises(
        MetagenError, match=r"1x16x16 images but got 1x28x28: set learner\.start\.channels"
    ) as error:
        learner.adapt(objective, objective.params(), one(random_episodes().support))
    assert "\n" not in str(error.value)


def test_a_set_of_equal_images_is_read_as_one_of_them():
    reader = SetReader(28, 1, 4, E).double()
    x = one(random_episodes().support).x[:, :1]
    torch.testing.assert_close(reader(x.expand(-1, 5, -1, -1, -1)), reader(x))
    assert (reader(x)[0] - reader(x)[1]).abs().max() > 1e-3
