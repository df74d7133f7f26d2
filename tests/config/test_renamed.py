"""Old names: each is read as today's, and what was kept under them still composes."""

import json
from pathlib import Path

import pytest
from conftest import choices, composed
from hydra.utils import get_object
from omegaconf import OmegaConf

from metagen.config import renamed
from metagen.config.overrides import own_overrides
from metagen.config.schema import check
from metagen.runs.reopen import reopen
from metagen.runs.settings import overrides_of

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
KEPT = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
RECORDS = {name: record for name, record in KEPT.items() if "overrides" in record}


@pytest.mark.parametrize("name", RECORDS)
def test_the_command_of_a_record_composes(name):
    record = RECORDS[name]
    cfg = composed(*renamed.overrides(record["overrides"]))
    check(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    assert set(record["metrics"]) <= set(choices("metric")), "each metric is a choice of today"


def test_there_are_records():
    assert len(RECORDS) > 60


@pytest.mark.parametrize("old", renamed.CLASSES)
def test_a_class_has_moved(old):
    new = renamed.CLASSES[old]
    get_object(new.target)(**new.arguments) if new.arguments else get_object(new.target)
    with pytest.raises(Exception, match=r"Error (loading|locating)"):
        get_object(old)


@pytest.mark.parametrize("old", [old for old, new in renamed.CLASSES.items() if new.arguments])
def test_a_metric_that_became_another_keeps_its_name(old):
    """The choice ``coverage_real`` is what the class that took its place calls itself."""
    target, arguments = renamed.CLASSES[old]
    name = get_object(target)(**arguments).name
    node = composed(f"metric=[{name}]").metrics[name]
    assert (node._target_, node.images) == (target, arguments["images"])


def test_a_saved_configuration_is_read_in_todays_names():
    saved = {
        "metrics": {
            "coverage_real": {"_target_": "metagen.metrics.prdc.CoverageReal", "k": 3},
            "cas_augmented": {
                "_target_": "metagen.metrics.classification_accuracy_score.AugmentedScore", "images": 8,
            },
        },
        "judge": {"_target_": "metagen.judge.Judge", "model": {"_target_": "metagen.models.basenet.BaseNet"}},
        "task": {"augment": [{"_target_": "metagen.data.augment.Warp", "images": 1}]},
    }  # fmt: skip
    new = renamed.config(saved)
    assert new["task"]["augment"] == [{"_target_": "metagen.data.augment.RandomAffine", "images": 1}]
    assert new["metrics"]["coverage_real"] == {
        "_target_": "metagen.metrics.prdc.Coverage", "k": 3, "images": "real",
    }  # fmt: skip
    assert new["metrics"]["cas_augmented"] == {
        "_target_": "metagen.metrics.classification_accuracy_score.AugmentedScore", "count": 8,
    }  # fmt: skip
    assert new["judge"]["_target_"] == "metagen.evaluation.judge.Judge"
    assert new["judge"]["model"] == saved["judge"]["model"]


def test_saved_overrides_are_read_in_todays_names():
    old = [
        "metric@task.metric=[cas]", "tuned=quickstart_chain", "~size_of", "+size_of_model=a_b_gpu",
        "learner=gradient_descent", "judge._target_=metagen.judge.Judge", "+seed=1", "task.shots=3",
        "metrics.cas_augmented.images=9",
    ]  # fmt: skip
    new = [
        "metric=[cas]", "learner=maml", "judge._target_=metagen.evaluation.judge.Judge", "+seed=1",
        "task.shots=3", "metrics.cas_augmented.count=9",
    ]  # fmt: skip
    assert own_overrides(old, "here") == new
    assert list(overrides_of({"overrides": old})) == [text.lstrip("+").partition("=")[0] for text in new]
    assert renamed.overrides(new) == new


def test_an_old_run_is_opened(tmp_path):
    """A run from before the move: its classes, its key of metrics, its groups."""
    saved = OmegaConf.to_container(composed("metric=[cas,cas_real]", "task.shots=2"))
    saved["judge"]["_target_"] = "metagen.judge.Judge"
    saved["metrics"]["cas_real"] = {
        "_target_": "metagen.metrics.classification_accuracy_score.RealScore", "decay": 0.5,
    }  # fmt: skip
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(saved), tmp_path / ".hydra" / "config.yaml")
    given = ["metric@task.metric=[cas,cas_real]", "task.shots=2", "tuned=none"]
    OmegaConf.save(OmegaConf.create(given), tmp_path / ".hydra" / "overrides.yaml")
    parts = reopen(tmp_path)
    assert parts.lost == []
    assert parts.config["metrics"]["cas_real"] == {
        "_target_": "metagen.metrics.classification_accuracy_score.ClassificationAccuracyScore",
        "decay": 0.5,
        "images": "real",
    }
    assert set(parts.changed) == {"metrics.cas_real.decay"}
    check(OmegaConf.to_container(OmegaConf.create(parts.config), resolve=True))
