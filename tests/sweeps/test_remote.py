"""Launchers for clusters: the configuration, the files for SLURM, and an array of jobs from end to end."""

import json
import re
import sys

import hydra_plugins.hydra_submitit_launcher.config as submitit
import pytest
from conftest import composed
from fake_slurm import install
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metagen.cli.main import run
from metagen.config.tree import conf_dir

TINY = [
    "task.episodes=2",
    "task.val_episodes=2",
    "task.batch=2",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.enable_progress_bar=false",
    "metric=negative_elbo",
    "samples=2",
    "model.channels=8",
    "model.hidden=16",
]


def launcher(name):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", [f"hydra/launcher={name}"], return_hydra_config=True)
    return OmegaConf.to_container(cfg.hydra.launcher, resolve=False)


def test_the_default_of_sweeps_is_the_queue():
    assert composed() == composed("hydra/launcher=queue")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        chosen = compose("config", return_hydra_config=True).hydra.runtime.choices
    assert chosen["hydra/launcher"] == "queue"


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/ray'")
def test_ray_works_on_a_cluster_that_runs():
    ray = launcher("ray")["ray"]
    assert ray["init"] == {"address": None, "object_store_memory": None}
    assert ray["remote"]["num_gpus"] == 1


def test_slurm_takes_what_its_launcher_takes():
    known = set(OmegaConf.structured(submitit.SlurmQueueConf).keys())
    assert set(launcher("slurm")) <= known


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_a_launcher_that_is_not_installed_gets_one_line(name, tmp_cwd, capsys, monkeypatch):
    module = {"ray": "hydra_ray_launcher.ray_launcher", "slurm": "hydra_submitit_launcher.submitit_launcher"}
    monkeypatch.setitem(sys.modules, f"hydra_plugins.{module[name]}", None)
    assert run(["train", "-m", "seed=0,1", f"hydra/launcher={name}"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"metagen: error: hydra/launcher={name} is not installed: pip install 'metagen-images[{name}]'"
    ]
    assert list(tmp_cwd.iterdir()) == []


@pytest.mark.slow
def test_an_array_of_jobs_on_slurm(tmp_cwd, capsys, monkeypatch):
    slurm = tmp_cwd / "slurm"
    slurm.mkdir()
    install(slurm)
    monkeypatch.setenv("PATH", f"{slurm}:/usr/bin:/bin")
    settings = ["hydra/launcher=slurm", "hydra.launcher.partition=fast", "hydra.launcher.timeout_min=30"]
    settings += ["+hydra.launcher.additional_parameters.requeue=true", "hydra.sweep.dir=a sweep"]
    code = run(["train", "-m", "learner=supervised,amortized", *TINY, *settings])
    out = capsys.readouterr().out
    assert code == 1, "the first job fails"
    assert re.search(r"0 +supervised +failed", out), out
    assert re.search(r"1 +amortized +done", out), out
    assert "does not fit few-shot episodes" in out
    text = (slurm / "submitted.sh").read_text()
    for line in ("array=0-1%2", "partition=fast", "time=30", "gpus-per-node=1", "signal=USR2@120", "requeue"):
        assert f"#SBATCH --{line}" in text
    assert text.count("srun ") == 1, "one array"
    assert (tmp_cwd / "a sweep" / "1" / "metrics.json").is_file()
    record = json.loads((tmp_cwd / "a sweep" / "jobs" / "1.json").read_text())
    assert record["state"] == "done"


@pytest.mark.parametrize("name", ["submitit_local", "submitit_slurm", "joblib", "basic"])
def test_launchers_of_others_are_refused_with_ours(name, tmp_cwd, capsys):
    assert run(["train", "-m", "seed=0,1", f"hydra/launcher={name}"]) == 2
    (text,) = capsys.readouterr().err.splitlines()
    assert all(word in text for word in (f"hydra/launcher={name}", "launcher=queue", "launcher=slurm"))
    assert not list(tmp_cwd.iterdir())
