"""Every experiment file, found by globbing: it composes, fits its constructors, and trains a step."""

import inspect
import json
from pathlib import Path

import pytest
from conftest import choices, composed, rest_slow
from data.data_samples import make_mnist, serve_cifar
from hydra.utils import get_object
from omegaconf import OmegaConf

from metagen.cli.main import run
from metagen.config.schema import check
from metagen.data.split import Split
from metagen.evaluation.judge import Judge
from metagen.evaluation.judge_protonet import ProtoNetJudge

pytest_plugins = ["data.data_fixtures"]

TINY = [
    "trainer.max_steps=1",
    "trainer.val_check_interval=1",
    "trainer.check_val_every_n_epoch=null",
    "trainer.enable_progress_bar=false",
    "samples=3",
]
FEW = ["task.episodes=2", "task.val_episodes=2", "task.eval_batch=2", "task.batch=2"]
METRICS = ("augmentation", "augmentation_support")
SIDES = [f"{side}-{what}" for side in ("train", "test") for what in ("images-idx3", "labels-idx1")]
ABSENT = ("cifar_fs_samples", "emnist_augmentation")
"""Whose data are not among the real ones: tested below on made-up ones."""
SAMPLE = ("mnist_leave_one_out", "omniglot_classify", "omniglot_samples")
"""Those that train a step in every run of the tests."""
NARROW = {"channels": 8, "filters": 16, "hidden": 32, "width": 32, "features": 16, "maps": 4, "latent": 8}
"""Of a model's layers: a step and its test take a fraction of the time."""


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory, banks):
    """A cache with the banks of all tests, and with judges of its own."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "banks").symlink_to(banks / "banks")
    return folder


@pytest.fixture
def quick_judge(monkeypatch, own_cache):
    """A judge that trains on a handful of the images, and is kept where no real one is looked for."""
    monkeypatch.setenv("METAGEN_CACHE", str(own_cache))
    real_fit = Judge._train

    def fit(self, x, y, name):
        self.epochs, self.min_steps = 1, 0
        real_fit(self, x[::500], y[::500], name)

    monkeypatch.setattr(Judge, "_train", fit)
    learn = ProtoNetJudge._learn

    def one_step(self, sampler):
        self.steps = 1
        learn(self, sampler)

    monkeypatch.setattr(ProtoNetJudge, "_learn", one_step)
    monkeypatch.setattr("metagen.evaluation.judge_protonet._TEST_EPISODES", 2)


@pytest.mark.parametrize("name", choices("experiment"))
def test_experiment_composes_and_fits_its_constructors(name):
    cfg = composed(f"experiment={name}")
    check(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


@pytest.mark.parametrize("asked", [[], *([f"experiment={name}"] for name in choices("experiment"))])
def test_what_leads_is_not_won_by_one_image_over_and_over(asked):
    """Or it is shown beside the metric that finds that out."""
    metrics = composed(*asked).metrics
    first = get_object(metrics[next(iter(metrics))]["_target_"])
    assert first.name not in ("memorisation", "precision", "density", "originality")
    assert first.beside is None or first.beside in metrics


def small_metrics(metrics):
    """Return overrides for metrics that train one step, and look for neighbours among three samples."""
    return [
        f"metrics.{name}.{key}={value}"
        for key, value in (("steps", 1), ("k", 2))
        for name, node in metrics.items()
        if key in node
    ]


def trains_a_step(name):
    cfg = composed(f"experiment={name}")
    few = FEW if "shots" in cfg.task else []
    if "test_batch" in cfg.task:
        few = [*few, "task.test_batch=1000"]
    if cfg.task.get("test_ways"):
        few = [*few, "task.test_ways=2"]
    if "importance_samples" in (cfg.get("likelihood") or {}):
        few = [*few, "likelihood.importance_samples=2"]
    few = [
        *few,
        *(
            f"model.{key}={NARROW[key]}"
            for key, wide in cfg.model.items()
            if isinstance(wide, int) and wide > NARROW.get(key, wide)
        ),
    ]
    if cfg.data.get("size", 0) > 28:
        few = [*few, "data.size=28"]  # of which there is a bank already
    if cfg.checkpoint:
        # Where the experiment that it goes on from leaves it.
        _, start, *_ = Path(cfg.checkpoint).parts
        smaller = small_metrics(composed(f"experiment={start}").metrics)
        assert run(["train", f"experiment={start}", *TINY, *few, *smaller]) == 0
    few = [*few, *(f"learner.{key}=2" for key in ("steps", "test_steps") if cfg.learner.get(key, 0) > 2)]
    few = [*few, *small_metrics(cfg.metrics)]
    assert run(["train", f"experiment={name}", *TINY, *few, "hydra.run.dir=out"]) == 0
    with open("out/metrics.json") as file:
        record = json.load(file)
    assert record["training"]["steps"] in (0, 1)
    assert all(value["n"] > 0 for value in record["metrics"].values())


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", rest_slow([name for name in choices("experiment") if name not in ABSENT], SAMPLE)
)
def test_experiment_trains_a_step(name, real_root, tmp_cwd, quick_judge, monkeypatch):
    monkeypatch.setenv("METAGEN_DATA", str(real_root.resolve()))
    trains_a_step(name)


def test_quickstart_needs_no_data(tmp_cwd, quick_judge, monkeypatch):
    monkeypatch.setenv("METAGEN_DATA", str(tmp_cwd / "nothing"))
    trains_a_step("quickstart")


def test_cifar_fs_samples_trains_on_what_torchvision_downloads(server, tmp_cwd, quick_judge, monkeypatch):
    split = Split.load("cifar100_fsdm")
    names = sorted(split.train + split.val + split.test)
    serve_cifar(server, monkeypatch, names, {"train": 12, "test": 8})
    monkeypatch.setenv("METAGEN_DATA", str(tmp_cwd / "data"))
    steps = ["trainer.max_steps=3", "trainer.val_check_interval=3", "trainer.enable_progress_bar=false"]
    small = [
        "model.channels=8",
        "model.hidden=16",
        "model.sample_steps=1",
        "samples=7",
        "task.test_queries=14",
    ]
    few = [*FEW, "task.test_ways=2", "task.ways=3", *steps, *small]
    assert run(["train", "experiment=cifar_fs_samples", *few, "hydra.run.dir=out"]) == 0
    record = json.loads(Path("out/metrics.json").read_text())
    assert [len(record["split"][side]) for side in ("train", "val", "test")] == [60, 20, 20]
    assert record["training"]["steps"] == 3
    assert all(record["metrics"][name]["mean"] is not None for name in ("fid", "fid_real", "coverage"))


def test_cifar_fs_samples_at_full_size_is_the_protocol_of_few_shot_diffusion_models():
    cfg = composed("experiment=cifar_fs_samples", "size=gpu")
    check(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    assert (cfg.data.split, cfg.data.size, cfg.data.channels) == ("cifar100_fsdm", 32, 3)
    assert (cfg.task.shots, cfg.samples * cfg.task.test_ways) == (5, 10_000)
    assert cfg.task.shots + cfg.task.test_queries == 600, "all photographs of a class"
    assert (cfg.trainer.accelerator, cfg.model.channels, cfg.model.heads) == ("gpu", 128, 8)
    assert list(cfg.metrics)[:2] == ["fid", "fid_real"]


@pytest.mark.parametrize("name", ["omniglot_augmentation", "omniglot_augmentation_deformation"])
def test_omniglot_augmentation_is_the_published_protocol(name):
    cfg = composed(f"experiment={name}")
    split = Split.load(cfg.data.split)
    assert (len(split.train), len(split.test)) == (1200, cfg.task.test_ways) == (1200, 212)
    assert (cfg.samples, cfg.task.test_shots + cfg.task.test_queries) == (512, 20)


@pytest.mark.parametrize("model", ["warp", "deformation"])
def test_emnist_augmentation_on_made_up_images(model, tmp_cwd, monkeypatch):
    made = [f"emnist-balanced-{side}-ubyte" for side in SIDES]
    make_mnist(Path("data/EMNIST/raw"), made, train=47 * 8, test=47 * 8, classes=47)
    monkeypatch.setenv("METAGEN_DATA", str(tmp_cwd / "data"))
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_cwd / "cache"))
    quick = [f"metrics.{name}.{key}" for name in METRICS for key in ("steps=2", "batch=8", "width=4")]
    net = [f"model.{key}" for key in ("channels=8", "hidden=16", "features=8", "pen=false", "sample_steps=1")]
    few = ["task.ways=2", "task.val_episodes=1", "task.episodes=2", "task.test_queries=3", *quick]
    asked = [f"model={model}", *(net if model == "deformation" else []), *few, *TINY]
    assert run(["train", "experiment=emnist_augmentation", *asked, "hydra.run.dir=out"]) == 0
    record = json.loads(Path("out/metrics.json").read_text())
    assert [len(record["split"][side]) for side in ("train", "val", "test")] == [28, 9, 10]
    assert [record["metrics"][name]["n"] for name in METRICS] == [2, 2]


def test_a_schedule_that_torch_cannot_make_is_refused_in_one_line(tmp_cwd, quick_judge, capsys):
    assert (
        run(["train", *TINY, *FEW, "scheduler=one_cycle", "trainer.max_steps=20", "hydra.run.dir=out"]) == 2
    )
    assert "set another scheduler.pct_start or trainer.max_steps" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["data", "task", "model", "learner", "metric", "judge"])
def test_every_argument_stands_in_the_yaml(group):
    """So that it can be overridden without knowing of '+', and is shown by --help."""

    def nodes(node):
        if isinstance(node, dict):
            if str(node.get("_target_", "")).startswith("metagen."):
                yield node
            for value in node.values():
                yield from nodes(value)

    for choice in choices(group):
        cfg = composed(f"metric=[{choice}]") if group == "metric" else composed(f"{group}={choice}")
        tree = cfg.metrics if group == "metric" else cfg[group]
        for node in nodes(OmegaConf.to_container(tree, resolve=False)):
            parameters = inspect.signature(get_object(node["_target_"])).parameters.values()
            wanted = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
            # A part that is left out, such as rule: null in the defaults, is no key of what was composed.
            optional = {"rule"} if node["_target_"].endswith(".MetaLearner") else set()
            absent = wanted - set(node) - optional
            if node.get("_partial_"):
                continue
            assert not absent, f"conf/{group}/{choice}.yaml lacks {absent} of {node['_target_']}"


def test_sweeps_go_by_a_figure_that_one_image_over_and_over_cannot_win():
    """Sweeps and `list` go by the first metric; `recognised` is read beside diversity."""
    for experiment in (
        "mnist_leave_one_out", "mnist_leave_one_out_started", "omniglot_start", "omniglot_to_mnist",
    ):  # fmt: skip
        metrics = composed(f"experiment={experiment}").metrics
        name = next(iter(metrics))
        assert name == "coverage_relative"
        assert get_object(metrics[name]._target_).beside == "recognised"
