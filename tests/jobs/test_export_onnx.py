"""Samplers as ONNX: with the same noise they draw what the original draws, or one line says why not."""

import onnxruntime
import pytest
import torch
from conftest import build_pair, choices, random_shots, rest_slow
from torch import nn

from metagen.core.episode import Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.jobs import export_onnx, onnx_graph
from metagen.jobs.onnx_graph import drawn, graph

EULER = ["model.sample_steps=1", "model.solver._target_=metagen.models.flow.euler"]
PAIRS = {
    "hierarchical_vae": ("amortized", ["model.levels=1"]),
    "gan": ("maml", []),
    "flow": ("scratch", EULER),
    "warp": ("in_context", []),
    "deformation": ("in_context", ["model.sample_steps=1"]),
}
"""Generator -> a learner that adapts it, and what keeps its graph short."""


def adapted(model, learner, extra=()):
    """A tiny generator and its parameters after adaptation to three classes."""
    _, rule, objective = build_pair(model, learner, extra=extra, images=(1, 8))
    objective.model.float()
    support = Shots(*(part[0] for part in random_shots(1, 3, 2, 0, torch.float32, 8)))
    with torch.no_grad():
        return objective, rule.float().adapt(objective, objective.params(), support)


def test_every_generator_is_here():
    generate = {name for name in choices("model") if name not in ("basenet", "conv4")}
    elsewhere = {
        "pixel_transformer": "is refused below",
        "vae": "test_export",
        "vae_attention": "draws as vae",
    }
    assert generate - PAIRS.keys() == elsewhere.keys()


@pytest.mark.parametrize("model", rest_slow(PAIRS, ["hierarchical_vae", "warp"]))
def test_onnxruntime_draws_what_the_model_draws(model):
    objective, phi = adapted(model, *PAIRS[model])
    made = graph(objective, phi, 3)
    data = made.proto.SerializeToString()
    y = torch.tensor([2, 0, 1, 1, 2])  # the graph was made from three images
    known = drawn(objective, phi, y, 5)
    with torch.no_grad():
        wanted = objective.call("sample", phi, y, rng.key(5, 2)).clamp(0, 1)
    assert torch.equal(known.images, wanted)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    noise = {one.name: one.given(x).numpy() for one, (_, x) in zip(made.noise, known.noise, strict=True)}
    assert [node.name for node in session.get_inputs()] == ["y", *noise]
    for node in session.get_inputs():
        assert node.shape[0] == "batch"
        assert node.name == "y" or [5, *node.shape[1:]] == list(noise[node.name].shape)
    (images,) = session.run(["images"], {"y": y.numpy(), **noise})
    torch.testing.assert_close(torch.from_numpy(images), wanted, atol=1e-5, rtol=0)
    assert wanted.std() > 0
    other = noise | {name: x[::-1].copy() for name, x in noise.items()}
    assert abs(session.run(None, {"y": y.numpy(), **other})[0] - images).max() > 1e-3, "it reads its noise"


def test_a_model_of_too_many_operations_is_refused(monkeypatch):
    objective, phi = adapted("pixel_transformer", "in_context")
    monkeypatch.setattr(onnx_graph, "MOST", 1000)
    with pytest.raises(
        MetagenError, match=r"^PixelTransformer draws an image in [\d,]+ operations, .*generate$"
    ):
        graph(objective, phi, 3)


class Toy(nn.Module):
    """A generator whose sampler is a function."""

    def __init__(self, draw):
        super().__init__()
        self.context, self.draw = nn.Parameter(torch.rand(3, 4)), draw

    def loss(self, shots):
        return self.context.sum()

    def sample(self, y, key):
        return self.draw(self.context[y], key)[:, None, None, None].expand(-1, 1, 2, 2).sigmoid()


def halved(c, key):
    while float(c.abs().max()) > 0.1:
        c = c / 2
    return c[:, 0]


def one_by_one(c, key):
    return torch.stack([row[0] * rng.uniform(rng.fold_in(key, i), ()) for i, row in enumerate(c)])


def mirrored(c, key):
    return c[:, 0] + rng.uniform(key, (len(c) ** 2,)).unflatten(0, (len(c), -1)).sum(1)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (halved, r"Toy cannot be written as ONNX \(what it does next .*\): use "),
        (one_by_one, "Toy cannot be written as ONNX: how often it draws noise depends on how many .*: use "),
        (mirrored, r"Toy cannot be written as ONNX: its draw 0 is uniform \(4,\) for two images: expected "),
        (
            lambda c, key: c[:, 0] * rng.subset(key, 5, 1),
            "Toy cannot be written as ONNX: its draw 0 is bits ",
        ),
        (
            lambda c, key: c[:, 0] + torch.rand(len(c)),
            r"Toy cannot be .*depends on how many images there are",
        ),
        (lambda c, key: torch.linalg.svdvals(c)[:1].expand(len(c)), "Toy cannot be written as ONNX "),
        (
            lambda c, key: c[:, 0] + torch.rand_like(c[:, 0]),
            "as ONNX Toy draws other images: .* nothing was ",
        ),
    ],
    ids=[
        "as many steps as the data say",
        "as many draws as images",
        "not by the image",
        "integers",
        "of one batch size",
        "no operator",
        "of torch's own",
    ],
)
def test_a_sampler_that_is_no_function_of_noise_is_refused_in_one_line(draw, words, capfd):
    objective = Objective(Toy(draw))
    phi = objective.params()

    def checked():
        made = graph(objective, phi, 3)
        export_onnx.difference(made.proto.SerializeToString(), made, objective, phi, 3, 0)

    with pytest.raises(MetagenError, match=f"^{words}") as error:
        checked()
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", ""), "torch keeps quiet"
