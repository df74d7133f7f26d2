"""Runs for the demo: folders as a training leaves them, made in a moment."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import composed
from omegaconf import OmegaConf

from metagen.jobs.build import build_experiment

SMALL = ["model.channels=8", "model.hidden=32"]
TINY_TRANSFORMER = ["model=pixel_transformer", "model.width=16", "model.layers=1", "model.features=8"]


def make_run(folder: Path, *overrides: str) -> Path:
    """Write an untrained run of the digits: overrides, choices and a checkpoint."""
    cfg = composed(*overrides)
    experiment = build_experiment(cfg, 7)
    choices = {
        "learner": next((o.split("=")[1] for o in overrides if o.startswith("learner=")), "amortized"),
        "model": next((o.split("=")[1] for o in overrides if o.startswith("model=")), "vae"),
        "experiment": None,
    }
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    (folder / ".hydra/config.yaml").write_text(OmegaConf.to_yaml(cfg))
    (folder / ".hydra/hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
    state = {
        "state_dict": experiment.state_dict(),
        "hyper_parameters": {"classes": 7},
        "global_step": 0,
    }
    torch.save(state, folder / "checkpoints/best.ckpt")
    return folder


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by learner (and ``classifier``, ``small``, ``gan``)."""
    root = tmp_path_factory.mktemp("demo")
    wanted = {
        "amortized": ["learner=amortized", *SMALL],
        "reptile": ["learner=reptile", "learner.test_steps=5", *SMALL],
        "in_context": ["learner=in_context", *TINY_TRANSFORMER],
        "small": ["learner=in_context", "data.size=20", *TINY_TRANSFORMER, "model.size=20"],
        "gan": ["learner=reptile", "model=gan", "model.channels=8"],
        "classifier": ["task=classify", "task.ways=3", "model=conv4", "learner=protonet"],
    }
    return {name: make_run(root / name, *overrides) for name, overrides in wanted.items()}
