"""What mixed precision lowers: what keeps the meta-gradient, the same in vmap, loop and threads."""

import json
import logging
from functools import partial

import pytest
import torch
from command_line import fails
from conftest import build_pair, choices, composed, random_episodes
from hydra.utils import instantiate
from omegaconf import OmegaConf

from metagen.cli.main import run
from metagen.config.schema import check as check_schema
from metagen.errors import MetagenError
from metagen.functional import grouped as ops
from metagen.functional.autocast import LEVELS, LowPrecision, ambient, check, full
from metagen.functional.vectorize import loop, vmap
from metagen.training.module import Experiment

TINY = [
    "learner=meta_sgd", "learner.steps=1", "metric=[negative_elbo]", "samples=2",
    "task.batch=4", "task.episodes=2", "task.val_episodes=2", "trainer.max_steps=3",
    "trainer.val_check_interval=2", "trainer.precision=64-true", "trainer.enable_progress_bar=false",
    "model.channels=8", "model.hidden=16", "data.size=16", "learner.test_steps=1",
]  # fmt: skip


def gradient(model, learner, parts, over=vmap, **how):
    """The meta-gradient of a narrow pair in float32, lowered to bf16 as ``parts`` says."""
    model, learner, _ = build_pair(model, learner, images=(1, 16))
    experiment = Experiment(model.float(), learner.float(), torch.optim.SGD, classes=8, **how)
    experiment.precision = LowPrecision(
        parts or experiment.lowers, torch.bfloat16 if parts != "full" else None
    )
    experiment.over = over
    experiment.meta_loss(random_episodes(dtype=torch.float32, size=16)).backward()
    return torch.cat([p.grad.flatten() for p in experiment.parameters() if p.grad is not None])


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


PAIRS = [
    ("conv4", "protonet"), ("conv4", "maml"), ("flow", "fomaml"), ("vae", "reptile"), ("vae", "maml"),
    ("vae", "amortized"), ("vae", "chain"), ("vae", "transfer"), ("vae", "learned_optimizer_mlp"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "learner"), PAIRS)
def test_what_is_lowered_keeps_the_meta_gradient(model, learner):
    exact = gradient(model, learner, "full")
    assert cosine(gradient(model, learner, None), exact) > 0.99
    assert torch.equal(gradient(model, learner, "none"), exact), "lowering nothing changes nothing"


def test_an_inner_loop_in_bf16_spoils_the_meta_gradient():
    """The reason for it all: were this wrong, everything could be lowered."""
    exact, query, everything = (gradient("conv4", "maml", parts) for parts in ("full", "query", "all"))
    error = [float((g - exact).norm() / exact.norm()) for g in (query, everything)]
    assert 0 < error[0] < error[1]
    assert cosine(everything, exact) < cosine(query, exact)


@pytest.mark.parametrize("parts", LEVELS)
def test_backends_and_threads_lower_the_same(parts):
    whole = gradient("vae", "maml", parts)
    assert cosine(gradient("vae", "maml", parts, loop), whole) > 0.999
    assert cosine(gradient("vae", "maml", parts, chunk=1, workers=2), whole) > 0.999


def test_convolutions_of_ours_are_lowered_and_norms_are_not():
    x, w = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.conv2d(x, w, torch.zeros(4))
        assert y.dtype == torch.bfloat16
        assert (
            ops.conv_transpose2d(y, w.detach().transpose(0, 1).transpose(0, 1), None).dtype == torch.bfloat16
        )
        assert ops.group_norm(y, 2).dtype == torch.float32
        assert ambient(x.device) == torch.bfloat16
        with full(x.device):
            assert ambient(x.device) is None
            assert ops.conv2d(x, w, None).dtype == torch.float32
    y.float().sum().backward()
    assert w.grad.dtype == torch.float32


def test_a_run_in_bf16_says_what_was_lowered(tmp_cwd, caplog):
    low = ["trainer.precision=bf16-mixed", "learner=fomaml", "hydra.run.dir=run"]
    with caplog.at_level(logging.INFO):
        assert run(["train", *TINY, *low]) == 0
    record = json.loads((tmp_cwd / "run/metrics.json").read_text())
    assert record["precision"]["trainer"] == "bf16-mixed"
    assert record["precision"]["low"].startswith("bfloat16: the query loss; adaptation in float32")
    assert "precision: bfloat16" in (tmp_cwd / "run/metagen.log").read_text()
    weights = torch.load(tmp_cwd / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.dtype == torch.float32 for value in weights.values())


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_of_a_fused_optimizer_are_clipped(precision, algorithm, tmp_cwd, monkeypatch):
    largest, step = [], torch.optim.Adam.step

    def watched(self, closure=None):
        # Lightning clips inside the closure, the optimizer steps after it.
        loss = closure()
        params = [p for group in self.param_groups for p in group["params"]]
        grads = torch.cat([p.grad.flatten() for p in params if p.grad is not None])
        largest.append(float(grads.norm() if algorithm == "norm" else grads.abs().max()))
        assert all(group["fused"] for group in self.param_groups)
        step(self)
        return loss

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    clipped = ["trainer.gradient_clip_val=1e-4", f"+trainer.gradient_clip_algorithm={algorithm}"]
    assert run(["train", *TINY, *clipped, f"trainer.precision={precision}", "hydra.run.dir=run"]) == 0
    assert largest == pytest.approx([1e-4] * len(largest), rel=1e-2)
    assert largest


MISTAKES = [
    (["trainer.precision=16-mixed"], ["16-mixed", "GPU", "bf16-mixed"]),
    (["trainer.precision=bf16-true"], ["bf16-true", "bf16-mixed"]),
    (["trainer.precision=bf16-mixd"], ["did you mean 'bf16-mixed'"]),
    (["autocast=qery"], ["autocast", "query"]),
    (["learner=reptile", "autocast=all"], ["autocast=all", "Displacement", "autocast=auto"]),
]


@pytest.mark.parametrize(("overrides", "words"), MISTAKES, ids=lambda value: " ".join(value))
def test_a_precision_that_cannot_be_gets_one_line(overrides, words, tmp_cwd, capsys):
    assert fails(["train", *overrides], capsys, *words) == 2
    assert list(tmp_cwd.iterdir()) == []


def test_float16_is_refused_where_its_scale_would_be_lost():
    on_gpu = partial(check, "16-mixed", False)
    on_gpu(clipped=False, fused=True, chunk=None)
    on_gpu(clipped=True, fused=False, chunk=None)
    with pytest.raises(MetagenError, match=r"optimizer\.fused=false"):
        on_gpu(clipped=True, fused=True, chunk=None)
    with pytest.raises(MetagenError, match="chunk=null"):
        on_gpu(clipped=False, fused=True, chunk=4)


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_has_a_size_for_a_gpu(name):
    cfg = composed(f"experiment={name}", "size=gpu")
    check_schema(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("gpu", "bf16-mixed")


@pytest.mark.parametrize("name", [n for n in choices("experiment") if choices(f"experiment/{n}/size")])
def test_a_full_size_is_larger(name):
    small, large = composed(f"experiment={name}"), composed(f"experiment={name}", "size=gpu")
    assert large.trainer.max_steps > small.trainer.max_steps
    assert large.task.batch * large.task.ways > small.task.batch * small.task.ways
    assert composed(f"experiment={name}", "size=gpu", "task.batch=3").task.batch == 3


GENERATORS = {
    "vae": "chain", "vae_attention": "amortized", "hierarchical_vae": "amortized", "flow": "amortized",
    "gan": "reptile", "pixel_transformer": "in_context",
}  # fmt: skip
PROTOCOLS = ("mnist_leave_one_out", "mnist_leave_one_out_started", "omniglot_start", "omniglot_to_mnist",
             "omniglot_samples")  # fmt: skip
EVERY = [(name, model) for name in PROTOCOLS for model in GENERATORS]
WITH_LIKELIHOOD = [("omniglot_nll", model) for model in GENERATORS if model not in ("flow", "gan")]


@pytest.mark.parametrize(("name", "model"), [*EVERY, *WITH_LIKELIHOOD])
def test_a_protocol_takes_every_generator_in_both_sizes(name, model):
    sizes = []
    for size in ("cpu", "gpu"):
        cfg = composed(f"experiment={name}", f"model={model}", f"learner={GENERATORS[model]}", f"size={size}")
        check_schema(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
        with torch.device("meta"):
            sizes.append(sum(p.numel() for p in instantiate(cfg.model).parameters()))
    assert sizes[0] <= sizes[1]


def test_a_full_size_runs_on_a_cpu_for_a_few_steps(tmp_cwd):
    short = ["size=gpu", "trainer=debug", "trainer.max_steps=2", "trainer.detect_anomaly=false"]
    tiny = [text for text in TINY if not text.startswith(("trainer.precision", "trainer.max_steps"))]
    assert run(["train", *tiny, *short, "hydra.run.dir=run"]) == 0
    record = json.loads((tmp_cwd / "run/metrics.json").read_text())
    assert record["choices"]["size"] == "gpu"
    assert record["precision"]["trainer"] == "bf16-mixed"
