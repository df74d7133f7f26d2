"""The experiment file of a search's best trial: by itself it composes what the trial was."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from metagen.config.compose import compose
from metagen.config.tree import conf_dir
from metagen.sweeps.best import write_experiment

TRIALS = [
    ["learner=maml", "learner.rule.rate=0.3"],
    ["experiment=mnist_holdout", "learner=reptile", "optimizer.lr=0.2", "task.augment=[]"],
    ["learner=chain", "learner.rule.rate=0.02", "experiment=quickstart"],
    ["experiment=omniglot_start", "model=flow", "model.maps=5", "metric=[fid]", "data@test_data=mnist"],
    ["experiment=omniglot_to_mnist", "model=flow", "learner=amortized", "size=gpu", "optimizer.lr=0.1"],
]


@pytest.mark.parametrize("trial", TRIALS, ids=" ".join)
def test_the_file_composes_what_the_trial_was(trial, tmp_path):
    path = tmp_path / "experiment" / "best.yaml"
    path.parent.mkdir()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        write_experiment(path, trial, GlobalHydra.instance().config_loader(), "Trial 3: 0.5")
    size = [text for text in trial if text.startswith("size=")]
    assert compose(["experiment=best", *size], tmp_path).config == compose(trial).config
    assert ("size=gpu" in path.read_text().splitlines()[1]) == bool(size)
