"""There is one way to reopen a run: its saved configuration, whatever has become of conf."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import draw
from processes import QUICK, trained_run

import metagen
from metagen.cli.main import run
from metagen.config.tree import conf_dir
from metagen.demo.engine import Engine
from metagen.runs.reopen import reopen

TINY = [*QUICK, "trainer.max_steps=2", "trainer.val_check_interval=1", "samples=3", "judge.epochs=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("made"), TINY)


@pytest.fixture
def changed(made, tmp_cwd, monkeypatch):
    """The run, after conf has changed: another model, another number of shots, a learner gone."""
    shutil.copytree(made, "run")
    conf = tmp_cwd / "conf"
    shutil.copytree(conf_dir(), conf)
    edits = {
        "model/vae.yaml": ("latent: 32", "latent: 7"),
        "task/generate.yaml": ("shots: 5", "shots: 2"),
        "config.yaml": ("samples: 64", "samples: 99"),
    }
    for name, (old, new) in edits.items():
        text = (conf / name).read_text()
        assert old in text, name
        (conf / name).write_text(text.replace(old, new, 1))
    (conf / "learner" / "meta_sgd.yaml").unlink()
    for module in ("config.compose", "config.overrides", "config.tuned", "runs.reopen"):
        monkeypatch.setattr(f"metagen.{module}.conf_dir", lambda: conf)
    return Path("run")


def record(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


def test_evaluate_means_the_run(changed):
    assert run(["evaluate", "run", "hydra.run.dir=new"]) == 0
    assert record("new")["per_episode"] == record("run")["per_episode"]
    assert record("new")["choices"]["learner"] == "meta_sgd"


def test_reproduce_means_the_run(changed, capsys):
    assert run(["reproduce", "run", "hydra.run.dir=new"]) == 0
    assert "identical" in capsys.readouterr().out


def test_resume_means_the_run(changed, made):
    Path("run/metrics.json").unlink()
    assert run(["train", "--resume", "run"]) == 0
    assert record("run")["per_episode"] == record(made)["per_episode"]
    assert Path("run/.hydra/config.yaml").read_bytes() == (made / ".hydra/config.yaml").read_bytes()


def test_generate_and_python_mean_the_run(changed, made, tmp_cwd):
    draw(tmp_cwd / "mine" / "stroke")
    assert run(["generate", "run", "--images", "mine", "--out", "new", "--n", "2"]) == 0
    trained = metagen.load("run")
    assert trained.config["model"]["latent"] == 32
    assert trained.config["task"]["shots"] == 5
    assert metagen.load("run", ["learner.test_steps=3"]).learner.test_steps == 3


def test_the_page_means_the_run(changed):
    (runner,) = Engine([changed]).runners
    assert runner.trained.config["model"]["latent"] == 32
    assert "meta_sgd" in runner.label


@pytest.mark.slow
def test_a_model_of_ones_own_folder_is_reopened_without_it(tmp_cwd, monkeypatch):
    """Its configuration was chosen by ``--config-dir``, which later commands do not name."""
    own = tmp_cwd / "own" / "model"
    own.mkdir(parents=True)
    text = (conf_dir() / "model" / "vae.yaml").read_text()
    (own / "net.yaml").write_text(text.replace("hidden: 256", "hidden: 16"))
    draw(tmp_cwd / "mine" / "stroke")
    argv = ["train", *TINY, "--config-dir", "own", "model=net", "model.channels=8", "hydra.run.dir=run"]
    assert run(argv) == 0
    shutil.rmtree("own")
    assert run(["generate", "run", "--images", "mine", "--out", "new", "--n", "2"]) == 0
    assert run(["evaluate", "run", "hydra.run.dir=again"]) == 0
    assert record("again")["per_episode"] == record("run")["per_episode"]
    assert record("again")["choices"]["model"] == "net"


def test_a_key_that_a_new_choice_does_not_have_is_no_override_any_more(tmp_path):
    words = ["experiment=omniglot_nll", "likelihood.contexts=[0,5]", "samples=3"]
    (tmp_path / ".hydra").mkdir()
    for name, content in (("config", metagen.compose(words).config), ("overrides", words)):
        (tmp_path / ".hydra" / f"{name}.yaml").write_text(json.dumps(content, default=str))
    new = ["likelihood=none", "samples=5"]
    assert reopen(tmp_path, new).overrides == ["experiment=omniglot_nll", *new]
    assert reopen(tmp_path, ["samples=5"]).overrides == [*words[:2], "samples=5"]
