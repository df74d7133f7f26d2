"""A run is run again from what was saved, whatever has become of conf, of the machine and of the folder."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import fails
from omegaconf import OmegaConf
from processes import inside

from metagen.cli.main import run
from metagen.config.tree import conf_dir
from metagen.errors import MetagenError
from metagen.jobs.reproduce import Reproduction, expected, results, side_by_side
from metagen.runs.reopen import reopen

QUICK = [
    "metric=[negative_elbo,diversity]",
    "task.episodes=3",
    "task.val_episodes=0",
    "task.batch=2",
    "trainer.max_steps=2",
    "trainer.enable_progress_bar=false",
    "samples=4",
    "model.channels=8",
    "model.hidden=32",
    "data.size=16",
    "learner=chain",
    "learner.test_steps=1",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A job of a sweep, and an evaluation of it, in the folder that is returned."""
    with inside(tmp_path_factory.mktemp("reproduce")) as folder:
        (folder / "data").mkdir()
        where = [f"data.root={folder / 'data'}", "hydra.run.dir=sweep/3"]
        assert run(["train", *QUICK, *where]) == 0
        assert run(["evaluate", "sweep/3", "task.episodes=2", "hydra.run.dir=evaluated"]) == 0
    return folder


@pytest.fixture
def here(runs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAGEN_CACHE", str(runs / "cache"))
    shutil.copytree(runs / "sweep", tmp_path / "sweep")
    return tmp_path


@pytest.fixture
def conf(here, monkeypatch):
    """A copy of conf that a test may edit, in the place of conf."""
    copy = here / "conf"
    shutil.copytree(conf_dir(), copy)
    for module in ("config.compose", "config.overrides", "runs.reopen"):
        monkeypatch.setattr(f"metagen.{module}.conf_dir", lambda: copy)
    return copy


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_run_is_repeated_with_as_many_threads_as_it_had(here, capsys):
    own = torch.get_num_threads()
    try:
        torch.set_num_threads(own + 1)
        assert run(["reproduce", "sweep/3"]) == 0
        assert torch.get_num_threads() == own
        assert "identical" in capsys.readouterr().out
    finally:
        torch.set_num_threads(own)


def test_a_run_is_repeated_bit_by_bit_in_a_folder_of_its_own(here, capsys):
    before = contents("sweep")
    assert run(["reproduce", "sweep/3"]) == 0
    out = capsys.readouterr().out
    assert "nothing differs: conf, code and versions" in out
    assert "identical: all 2 metrics of all 3 episodes" in out
    assert contents("sweep") == before
    (new,) = Path("outputs").glob("*/*")
    old, record = (json.loads((f / "metrics.json").read_text()) for f in (Path("sweep/3"), new))
    assert results(old) == results(record)
    assert record["data"]["train"]["images"] == 1797
    assert record["overrides"] == old["overrides"]
    assert json.loads((new / "reproduction.json").read_text())["equal"] is True


def test_an_evaluation_is_repeated_as_one(runs, here, capsys):
    shutil.copytree(runs / "evaluated", "evaluated")
    assert run(["reproduce", "evaluated", "hydra.run.dir=again"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("evaluates again evaluated")
    assert "identical: all 2 metrics of all 2 episodes" in out
    assert not Path("again/checkpoints").exists()
    shutil.rmtree("sweep")
    words = ["sweep/3/checkpoints/best.ckpt", "checkpoint=RUN or FILE"]
    assert fails(["reproduce", "evaluated"], capsys, *words) == 1


def test_a_new_override_is_named_as_the_reason(here, capsys):
    assert run(["reproduce", "sweep/3", "trainer.max_steps=1", "hydra.run.dir=again"]) == 0
    out = capsys.readouterr().out
    assert "different, which is to be expected: the override trainer.max_steps=1" in out
    assert "3 of 3" in out


def test_a_difference_without_a_reason_is_a_failure(here, capsys):
    path = Path("sweep/3/metrics.json")
    record = json.loads(path.read_text())
    record["per_episode"]["negative_elbo"][1] += 1e-9
    path.write_text(json.dumps(record))
    assert run(["reproduce", "sweep/3", "hydra.run.dir=again"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERENT on the same versions and device" in out
    assert "1 of 3" in out
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    other = Reproduction(Path("sweep/3"))
    other.again = replace(other.again, folder=Path("again"))
    text, right = other.after()
    assert right
    assert "to be expected: versions.torch 1.0 -> " in text


@pytest.mark.slow
def test_the_saved_configuration_counts_whatever_has_become_of_conf(here, conf, capsys):
    (conf / "learner/chain.yaml").unlink()
    edit(conf / "model/vae.yaml", "latent: 32", "latent: 7")
    edit(conf / "task/generate.yaml", "queries: 5  ", "questions: 5  ")
    edit(conf / "config.yaml", "samples: 64 ", "# ")
    assert run(["reproduce", "sweep/3", "hydra.run.dir=again"]) == 0
    out = capsys.readouterr().out
    for text in ("learner=chain", "samples=4"):
        assert f"no longer takes '{text}'" in out
    for line in ("model.latent 32 -> 7", "task.queries 5 -> -", "task.questions - -> 5", "samples 4 -> -"):
        assert f"today's conf has, the saved value counts: {line}" in out
    assert "identical" in out
    record = json.loads(Path("again/metrics.json").read_text())
    assert record["choices"]["learner"] == "chain"
    assert {"learner=chain", "samples=4"} <= set(record["overrides"])
    assert reopen(Path("again")) == reopen(Path("sweep/3")), "a reproduction is a run like others"


def test_overrides_act_on_what_was_saved(here, conf):
    edit(conf / "model/vae.yaml", "latent: 32", "latent: 7")
    edit(conf / "task/generate.yaml", "shots: 5   ", "shots: 2   ")

    def config(*new):
        return reopen(Path("sweep/3"), new).config

    assert config("task.shots=2")["task"]["shots"] == 2, "also where that is today's default"
    assert config("model.latent=9")["model"] == {**config()["model"], "latent": 9}
    chosen = config("learner=maml", "~model.latent")
    assert chosen["learner"]["_target_"].endswith("MetaLearner")
    assert chosen["model"] == {key: v for key, v in config()["model"].items() if key != "latent"}
    quickstart = config("experiment=quickstart")
    assert quickstart["optimizer"]["lr"] == 5e-3
    assert quickstart["trainer"]["max_steps"] == 2, "the run's own override counts more"


def test_paths_of_another_machine(runs, here, capsys, monkeypatch):
    config = Path("sweep/3/.hydra/config.yaml")
    edit(config, str(runs / "data"), "/elsewhere/data")
    monkeypatch.setenv("METAGEN_DATA", str(runs / "data"))
    assert run(["reproduce", "sweep/3", "hydra.run.dir=again"]) == 0
    out = capsys.readouterr().out
    assert "not on this machine: data.root /elsewhere/data -> ${oc.env:METAGEN_DATA,data}" in out
    assert "identical" in out
    edit(config, "checkpoint: null", "checkpoint: /elsewhere/best.ckpt")
    words = ["checkpoint=/elsewhere/best.ckpt", "not on this machine", "checkpoint=RUN or FILE"]
    assert fails(["reproduce", "sweep/3"], capsys, *words) == 1
    assert not Path("outputs").exists()


def test_the_checkpoint_of_the_same_seed(here):
    config = Path("sweep/3/.hydra/config.yaml")
    edit(config, "checkpoint: null", "checkpoint: start/${seed}/best.ckpt")
    path = Path("start") / str(OmegaConf.load(config).seed) / "best.ckpt"
    with pytest.raises(MetagenError, match=f"checkpoint={path} is not on this machine"):
        reopen(Path("sweep/3"))
    path.parent.mkdir(parents=True)
    path.touch()
    assert reopen(Path("sweep/3")).config["checkpoint"] == "start/${seed}/best.ckpt"


def test_a_run_that_began_as_a_model_that_ships(here):
    config = Path("sweep/3/.hydra/config.yaml")
    edit(config, "checkpoint: null", "checkpoint: pretrained/symbols")
    assert reopen(Path("sweep/3")).config["checkpoint"] == "pretrained/symbols"
    edit(config, "checkpoint: pretrained/symbols", "checkpoint: pretrained/symbls")
    with pytest.raises(MetagenError, match="no model pretrained/symbls ships"):
        reopen(Path("sweep/3"))


def test_a_strangers_run_runs_no_code(here, capsys):
    evil = Path("sweep/3/.hydra")
    (evil / "overrides.yaml").write_text("- hydra.job.name=taken\n- learner=../../sweep/3/evil\n")
    edit(evil / "config.yaml", "metagen.models.vae.VAE", "os.system")
    assert run(["reproduce", "sweep/3", "hydra.run.dir=again"]) in (1, 2)
    assert "model._target_=os.system" in capsys.readouterr().err
    assert not Path("again").exists()
    parts = reopen(Path("sweep/3"))
    assert not any(text.startswith("hydra") or ".." in text for text in parts.known)


MISTAKES = [
    (["reproduce"], "needs a run's folder"),
    (["reproduce", "nowhere"], "nowhere"),
    (["reproduce", "."], "no metrics.json"),
    (["reproduce", "sweep/3", "-m"], "-m"),
    (["reproduce", "sweep/3", "hydra.run.dir=sweep/3"], "holds a run"),
    (["reproduce", "sweep/3", "learner=chian"], "did you mean 'chain'"),
    (["reproduce", "sweep/3", "task.shost=3"], "task.shost"),
    (["reproduce", "sweep/3", "task.shots=["], "task.shots"),
]


@pytest.mark.parametrize(("argv", "word"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_gets_one_line_and_changes_nothing(argv, word, here, capsys):
    before = contents(here)
    assert fails(argv, capsys, word) in (1, 2)
    assert contents(here) == before


def test_a_sweep_is_no_run(here, capsys):
    Path("sweep/multirun.yaml").touch()
    assert fails(["reproduce", "sweep"], capsys, "sweep/0") == 1


def test_an_unfinished_run_has_nothing_to_compare_with(here, capsys):
    os.remove("sweep/3/metrics.json")
    assert fails(["reproduce", "sweep/3"], capsys, "no metrics.json") == 1


def test_reasons_and_table_of_records_by_hand():
    old = {
        "device": "cpu", "versions": {"torch": "2.0"}, "training": {}, "metrics": {"a": {"mean": 1.0}},
        "per_episode": {"a": [1.0, 1.0]}, "data": {"train": {"sha256": "x"}},
    }  # fmt: skip
    new = {**old, "device": "cuda:0", "data": {"train": {"sha256": "y"}}, "machine": {"threads": 2},
           "metrics": {"a": {"mean": 1.5}}, "per_episode": {"a": [1.0, 2.0]}}  # fmt: skip
    assert expected(old, old, []) == []
    assert expected(old, new, []) == ["device cpu -> cuda:0", "data.train.sha256 x -> y"]
    pillow = {"torch": "2.0", "pillow": "13.0"}
    assert expected(old, {**old, "versions": pillow}, []) == [], "nobody knows which one it was"
    theirs = {**old, "versions": {**pillow, "pillow": "12.3"}}
    assert expected(theirs, {**old, "versions": pillow}, []) == ["versions.pillow 12.3 -> 13.0"]
    assert side_by_side(old, new).splitlines()[-1].split() == ["a", "1", "1.5", "0.5", "1", "of", "2"]
