"""Whatever ends a training, it goes on and ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from command_line import fails
from conftest import META_TRAINED, composed, narrow, rest_slow, run_of
from omegaconf import OmegaConf
from processes import QUICK, Job, command, in_background, on_a_full_disk, slow_step, trained, trained_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metagen.cli.main import run
from metagen.config.compose import resolved
from metagen.data.digits import Digits
from metagen.errors import MetagenError
from metagen.jobs import train as jobs
from metagen.jobs.build import build_experiment
from metagen.reading import read_yaml
from metagen.training.checkpoints import newest, read_checkpoint
from metagen.training.module import Experiment

FIRST = ("conv4", "vae")
LEARNERS = {
    learner: model
    for first in (None, *FIRST[::-1])
    for model, learner in META_TRAINED
    if first in (None, model)
}
"""Every learner that is trained, with one model that it fits: the smallest, else the VAE, else any."""
SIZES = {"conv4": 16}
"""Of the images, where a model takes none of 8: a training that goes on does so at every size."""
KINDS = {"conv4": "classify", "basenet": "classify"}


DIGITS = cache(lambda size: Digits("data", size=size, split="digits_789").load())


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As the processes that are killed: sums over other numbers of threads are rounded differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Killed(BaseException):
    """Stands for the end of a process: what only its memory held is lost."""


def equal(a, b):
    """Whether two trees of tensors and numbers are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def same_end(one, other):
    for name in ("best.ckpt", "last.ckpt"):
        a, b = (read_checkpoint(folder / "checkpoints" / name) for folder in (one, other))
        assert a["global_step"] == b["global_step"], name
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert equal(a[part], b[part]), (name, part)
        scores = [saved["callbacks"]["Keeper"]["best_model_score"] for saved in (a, b)]
        assert scores[0] == scores[1] is not None


def config_for(learner, *overrides):
    model = LEARNERS[learner]
    task = "supervised" if learner == "supervised" else KINDS.get(model, "generate")
    cfg = composed(
        f"learner={learner}", f"model={model}", f"task={task}", f"data.size={SIZES.get(model, 8)}",
        "scheduler=cosine",
        "trainer.max_steps=5", "trainer.enable_progress_bar=false", "trainer.val_check_interval=2",
        *overrides,
    )  # fmt: skip
    OmegaConf.set_struct(cfg, False)
    cfg.model = narrow(OmegaConf.to_container(cfg.model, resolve=True))
    small = {"batch": 2, "val_episodes": 2, "val_images": 40, "shots": 2, "queries": 2, "test_queries": 2}
    cfg.task.update({key: value for key, value in small.items() if key in cfg.task})
    cfg.learner.update({key: 2 for key in ("steps", "test_steps") if cfg.learner.get(key)})
    if learner == "imaml":
        cfg.learner.gradient.cg_steps = 2
    cfg.learner.update({"second_order_after": 3, "msl_steps": 4} if "msl_steps" in cfg.learner else {})
    return cfg


@pytest.mark.parametrize("learner", rest_slow(LEARNERS, ["maml", "meta_sgd", "amortized", "reptile"]))
def test_an_interrupted_training_ends_as_an_uninterrupted_one(learner, tmp_path, monkeypatch):
    """Killed in the middle of an interval, and (one of them) in the middle of a validation."""
    monkeypatch.setattr(jobs, "_evaluate", lambda *args: 0.0)
    monkeypatch.setattr("metagen.jobs.build.rehearse", lambda *args: None)
    cfg = config_for(learner, "checkpoint_every=0")
    data = DIGITS(cfg.data.size)
    monkeypatch.setattr(Digits, "load", lambda self, *args, **kwargs: data)
    jobs.train(run_of(cfg, tmp_path / "whole"), lambda text: None)
    step, validate, deadly = Experiment.training_step, Experiment.validation_step, {("train", 1)}

    if learner == "meta_sgd":
        deadly.add(("val", 4))
    times = len(deadly)

    def dying(stage, method):
        def run(self, batch, index):
            moment = stage, self.global_step
            if moment in deadly:
                deadly.remove(moment)
                raise Killed
            return method(self, batch, index)

        return run

    monkeypatch.setattr(Experiment, "training_step", dying("train", step))
    monkeypatch.setattr(Experiment, "validation_step", dying("val", validate))
    said = []
    for _ in range(times):
        with pytest.raises(Killed):
            jobs.train(run_of(cfg, tmp_path / "parts"), said.append)
    jobs.train(run_of(cfg, tmp_path / "parts"), said.append)
    assert not deadly
    gone_on = [text.split(" (")[0] for text in said if text.startswith("goes on")]
    assert gone_on == [f"goes on from step {n}" for n in (1, 3)[:times]]
    same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    """SIGKILL at random moments, from outside, after every few steps."""
    moments, rng = [], random.Random(0)
    cfg = composed(*QUICK, "data.size=16", "trainer.max_steps=44", "trainer.val_check_interval=5")
    described = run_of(cfg, ".").to_json()
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    assert Job(tmp_path / "whole", trained, described).code() == 0
    for _ in range(20):
        job = Job(tmp_path / "parts", trained, described)
        goes_on = job.heard.recv()
        assert job.until(goes_on + rng.randint(1, 2))
        time.sleep(rng.uniform(0, 0.02))
        job.signal(signal.SIGKILL)
        moments.append(job.code())
    assert moments == [-signal.SIGKILL] * 20
    assert Job(tmp_path / "parts", trained, described).code() == 0
    same_end(tmp_path / "whole", tmp_path / "parts")
    state = read_checkpoint(tmp_path / "parts/checkpoints/last.ckpt")["callbacks"]["Keeper"]
    assert state["resumed"] == 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted; its folder."""
    return trained_run(tmp_path_factory.mktemp("whole"), LONG)


LONG = [
    *QUICK, "data.size=16", "trainer.max_steps=12", "trainer.val_check_interval=5",
    "trainer.log_every_n_steps=1",
]  # fmt: skip


def same_metrics(one, other):
    a, b = (json.loads((folder / "metrics.json").read_text()) for folder in (one, other))
    for key in ("metrics", "per_episode", "per_episode_by_step", "episodes", "choices"):
        assert a[key] == b[key], key
    return b["training"]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_within_the_step_and_the_run_goes_on(name, code, whole, tmp_cwd, capsys):
    job = Job(tmp_cwd, command, ["train", *LONG, "checkpoint_every=1000", "hydra.run.dir=run"])
    assert job.until(7)
    job.signal(getattr(signal, name))
    assert job.code() == code
    lines = [line for line in job.errors.read_text().splitlines() if line.startswith("metagen: error")]
    step = newest(Path("run/checkpoints"))[1]
    assert 8 <= step <= 9
    assert lines == [
        f"metagen: error: interrupted at step {step}: metagen train --resume {tmp_cwd}/run goes on from there"
    ]
    names = "config.yaml", "overrides.yaml"
    before = [Path("run/.hydra", name).read_bytes() for name in names]
    assert run(["train", "--resume", "run", "checkpoint_every=0"]) == 0
    assert f"goes on from step {step} " in capsys.readouterr().out
    assert [Path("run/.hydra/original", name).read_bytes() for name in names] == before
    training = same_metrics(whole, Path("run"))
    assert (training["steps"], training["resumed"]) == (12, 1)
    same_end(whole, Path("run"))
    (curves,) = Path("run/tensorboard").iterdir()
    events = EventAccumulator(str(curves)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(12)), "each once"
    assert run(["train", "--resume", "run"]) == 0
    assert "has come to its end" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_the_evaluation(name, code, whole, tmp_cwd):
    slow = ["task.episodes=200", "task.eval_batch=1"]
    job = Job(tmp_cwd, command, ["train", *LONG, *slow, "hydra.run.dir=run"])
    assert job.until(-1)
    job.signal(getattr(signal, name))
    assert job.code() == code
    assert newest(Path("run/checkpoints"))[1] == 12
    assert not Path("run/metrics.json").exists()
    job = Job(tmp_cwd, command, ["evaluate", str(whole), *slow])
    assert job.until(-1)
    job.signal(getattr(signal, name))
    assert job.code() == code
    assert not Path("outputs").exists(), "an evaluation that found nothing leaves nothing"


def test_a_second_ctrl_c_stops_at_once(tmp_cwd):
    job = Job(tmp_cwd, slow_step, ["train", *LONG, "checkpoint_every=1000", "hydra.run.dir=run"])
    assert job.until(2)
    begin = time.monotonic()
    for _ in range(2):
        job.signal(signal.SIGINT)
        time.sleep(0.8)
    assert job.code() == 130
    assert time.monotonic() - begin < 10, "the step would have taken 30 seconds"
    assert newest(Path("run/checkpoints")) == (None, None)


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(tmp_cwd):
    job = Job(tmp_cwd, in_background, ["train", *LONG, "hydra.run.dir=run"])
    assert job.until(2)
    job.signal(signal.SIGINT)
    assert job.code() == 0


def test_one_run_is_trained_by_one_process(tmp_cwd, capsys):
    job = Job(tmp_cwd, slow_step, ["train", *LONG, "hydra.run.dir=run"])
    assert job.until(2)
    assert fails(["train", "--resume", "run"], capsys, "another process", "run") == 1
    job.signal(signal.SIGKILL)
    job.code()


@pytest.fixture
def copied(whole, tmp_cwd):
    """A run that ended after its last checkpoint, in another folder than it began in; its checkpoints."""
    import shutil

    shutil.copytree(whole, "run")
    os.remove("run/metrics.json")
    return Path("run/checkpoints")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(damage, copied, whole, capsys):
    last = copied / "last.ckpt"
    data = bytearray(last.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    last.write_bytes({"truncated": data[: len(data) // 2], "flipped": data, "empty": b""}[damage])
    assert run(["train", "--resume", "run"]) == 0
    assert "goes on from step 11 (" in capsys.readouterr().out
    assert "last.ckpt is damaged and put aside" in Path("run/metagen.log").read_text()
    assert (copied / "last.ckpt.unreadable").read_bytes() == data or damage in ("truncated", "empty")
    same_metrics(whole, Path("run"))
    same_end(whole, Path("run"))


STATES = {
    "no optimizer": lambda saved: saved.pop("optimizer_states"),
    "two optimizers": lambda saved: saved["optimizer_states"].append(saved["optimizer_states"][0]),
    "another optimizer": lambda saved: saved["optimizer_states"][0]["param_groups"].clear(),
    "moments of another shape": lambda saved: saved["optimizer_states"][0]["state"][0].update(
        exp_avg=torch.zeros(1, 2, 3)
    ),
    "no version": lambda saved: saved.pop("pytorch-lightning_version"),
    "a schedule of text": lambda saved: saved["lr_schedulers"].__setitem__(0, "nope"),
    "a loop of text": lambda saved: saved["loops"]["fit_loop"].update({"epoch_progress": "nope"}),
    "no progress": lambda saved: saved["loops"]["fit_loop"].pop("epoch_loop.batch_progress"),
    "a negative step": lambda saved: saved["loops"]["fit_loop"]["epoch_progress"]["total"].update(ready=-1),
    "a callback of numbers": lambda saved: saved["callbacks"].update(Keeper=3),
    "a score of text": lambda saved: saved["callbacks"]["Keeper"].update(best_model_score="nope"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_checkpoint_whose_state_no_training_can_take_is_put_aside(name, copied, caplog):
    config = resolved(read_yaml(Path("run/.hydra/config.yaml")))
    for path in copied.glob("*.ckpt"):
        saved = torch.load(path, weights_only=True)
        if path.name == "last.ckpt":
            STATES[name](saved)
            torch.save(saved, path)
    assert newest(copied, build_experiment(config, saved["hyper_parameters"]["classes"]))[1] == 11
    assert "last.ckpt is damaged and put aside" in caplog.text


def test_without_a_readable_checkpoint_it_starts_anew(copied, whole, capsys):
    for path in copied.iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    assert run(["train", "--resume", "run"]) == 0
    assert "goes on" not in capsys.readouterr().out
    same_end(whole, Path("run"))


def test_a_full_disk_ends_in_one_line_with_the_last_checkpoint_intact(whole, tmp_cwd):
    """The limit on the size of a file is one that the system itself enforces."""
    size = (whole / "checkpoints/best.ckpt").stat().st_size
    job = Job(tmp_cwd, on_a_full_disk, ["train", *LONG, "hydra.run.dir=run"], size // 2)
    assert job.code() == 1
    lines = job.errors.read_text().splitlines()
    assert len(lines) == 1
    assert "cannot write" in lines[0]
    assert "metagen train --resume" in lines[0]
    path, step = newest(Path("run/checkpoints"))
    assert (path.name, step) == ("last.ckpt", 3)
    assert sorted(one.name for one in path.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.slow
def test_the_trainer_may_change_on_the_way(tmp_cwd, whole, capsys):
    constant = ["scheduler=constant", "trainer.val_check_interval=4"]
    assert run(["train", *LONG, *constant, "trainer.max_steps=12", "hydra.run.dir=long"]) == 0
    assert run(["train", *LONG, *constant, "trainer.max_steps=7", "hydra.run.dir=short"]) == 0
    os.remove("short/metrics.json")
    assert run(["train", "--resume", "short", "trainer.max_steps=12"]) == 0
    record = json.loads(Path("short/metrics.json").read_text())
    assert "trainer.max_steps=12" in record["overrides"]
    same_end(Path("long"), Path("short"))
    assert OmegaConf.load("short/.hydra/config.yaml").trainer.max_steps == 12
    assert OmegaConf.load("short/.hydra/original/config.yaml").trainer.max_steps == 7
    os.remove("long/metrics.json")
    fails(["train", "--resume", "long", "trainer.max_steps=5"], capsys, "max_steps=5", "has 12 steps already")
    assert not Path("long/metrics.json").exists()


MISTAKES = [
    (["--resume"], ["--resume", "--help"]),
    (["--resume", "nowhere"], ["nowhere"]),
    (["--resume", "."], [".hydra"]),
    (["--resume", "pretrained/symbols"], ["without the state", "checkpoint=pretrained/symbols"]),
    (["--resume", "run", "seed=3"], ["seed=3", "checkpoint="]),
    (["--resume", "run", "learner=maml"], ["learner=maml"]),
    (["--resume", "run", "hydra.run.dir=other"], ["hydra.run.dir"]),
    (["--resume", "run", "trainer.max_steps=13"], ["scheduler.T_max", "12", "13"]),
    (["--resume", "run", "trainer.max_step=13"], ["trainer.max_step", "max_steps"]),
    (["--resume", "run", "checkpoint_every=often"], ["checkpoint_every=often", "a number"]),
]


@pytest.mark.parametrize(("argv", "words"), MISTAKES, ids=lambda value: " ".join(value))
def test_a_mistake_changes_nothing(argv, words, copied, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["metagen", "train", *argv])
    before = sorted(Path().rglob("*.ckpt")), Path("run/.hydra/config.yaml").read_bytes()
    assert fails(["train", *argv], capsys, *words) in (1, 2)
    assert (sorted(Path().rglob("*.ckpt")), Path("run/.hydra/config.yaml").read_bytes()) == before


@pytest.mark.slow
def test_a_resumed_run_that_fails_keeps_its_folder(tmp_cwd, capsys, monkeypatch):
    """Killed before the first checkpoint, and then the data are not there."""
    Path("run/.hydra").mkdir(parents=True)
    assert run(["train", *LONG, "hydra.run.dir=made"]) == 0
    for name in ("config.yaml", "overrides.yaml"):
        os.replace(f"made/.hydra/{name}", f"run/.hydra/{name}")
    monkeypatch.setattr(
        "metagen.jobs.build.load_data", lambda cfg: (_ for _ in ()).throw(MetagenError("no data"))
    )
    assert fails(["train", "--resume", "run"], capsys, "no data") == 1
    assert Path("run/.hydra/overrides.yaml").is_file()


MINE = """
from metagen.learners.rules import Rule


class Sign(Rule):
    def update(self, params, grads, slots, index):
        return {name: p - self.rate * grads[name].sign() for name, p in params.items()}, slots
"""


@pytest.mark.slow
def test_a_run_of_ones_own_class_goes_on_where_that_is_allowed(tmp_cwd, monkeypatch, capsys):
    Path("mine_to_resume.py").write_text(MINE)
    Path("own/learner").mkdir(parents=True)
    text = "defaults:\n  - maml\nrule:\n  _target_: mine_to_resume.Sign\nadapts: tables\n"
    Path("own/learner/mine.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_cwd))
    monkeypatch.setenv("METAGEN_ALLOW", "mine_to_resume")
    few = ["learner=mine", "trainer.max_steps=1", "trainer.val_check_interval=1", "hydra.run.dir=run"]
    assert run(["train", "--config-dir", "own", *QUICK, *few]) == 0
    os.remove("run/metrics.json")
    shutil.rmtree("own")
    monkeypatch.delenv("METAGEN_ALLOW")
    assert fails(["train", "--resume", "run"], capsys, "METAGEN_ALLOW=mine_to_resume.Sign") == 1
    monkeypatch.setenv("METAGEN_ALLOW", "mine_to_resume")
    assert run(["train", "--resume", "run"]) == 0
    assert run(["evaluate", "run", "hydra.run.dir=again"]) == 0
