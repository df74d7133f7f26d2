"""The files of ``conf``: each says something of its own, and what an experiment's folder holds is read."""

import re
from pathlib import Path

import pytest
from conftest import choices, composed
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from metagen.config.help import overview
from metagen.config.schema import check
from metagen.config.tree import conf_dir

FILES = {str(path.relative_to(conf_dir())): path for path in sorted(conf_dir().rglob("*.yaml"))}
EXPERIMENTS = choices("experiment")
BESIDE = [name for name in FILES if name.startswith(("experiment/", "family/")) and name.count("/") > 1]
"""What differs for one learner, model or size: ``GROUP/NAME/KIND/CHOICE.yaml``."""


def content(path):
    node = OmegaConf.to_container(OmegaConf.load(path))
    return node if isinstance(node, dict) else {}


def test_no_file_only_points_at_another():
    """An override in a list of defaults says something, the name of another file by itself does not."""

    def points(config):
        return set(config) == {"defaults"} and not any(isinstance(one, dict) for one in config["defaults"])

    assert [name for name, path in FILES.items() if points(content(path))] == []


def test_no_file_equals_another():
    """A file of comments alone is a choice that adds nothing."""
    found = {}
    for name, path in FILES.items():
        if config := content(path):
            found.setdefault(OmegaConf.to_yaml(OmegaConf.create(config), sort_keys=True), []).append(name)
    assert [names for names in found.values() if len(names) > 1] == []


def member(name):
    """An experiment that takes a file: its own, or one of its family."""
    group, folder, *_ = Path(name).parts
    if group == "experiment":
        return folder
    return next(one for one in EXPERIMENTS if folder == family(one))


def family(experiment):
    return composed(f"experiment={experiment}", whole=True).hydra.runtime.choices["family"]


def test_the_families_are_those_that_have_files():
    named = {family(experiment) for experiment in EXPERIMENTS} - {None}
    assert named == {Path(name).parts[1] for name in BESIDE if name.startswith("family/")}


def chosen(name):
    """The overrides that make an experiment take a file."""
    _, _, kind, choice = Path(name).with_suffix("").parts
    if kind != "model":
        return [f"{kind}={choice}"]
    model, _, size = choice.rpartition("_")
    return [f"model={model}", f"size={size}"]


@pytest.mark.parametrize("name", BESIDE)
def test_a_file_beside_an_experiment_has_its_effect(name):
    """A misspelt one would never be read."""
    cfg = composed(f"experiment={member(name)}", *chosen(name))
    own = OmegaConf.load(FILES[name])
    own = OmegaConf.create({"model": own}) if "/model/" in name else own
    assert OmegaConf.merge(cfg, own) == cfg


@pytest.mark.parametrize("name", [name for name in BESIDE if name.startswith("experiment/")])
def test_a_file_beside_an_experiment_fits_the_constructors(name):
    cfg = composed(f"experiment={member(name)}", *chosen(name))
    check(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


@pytest.mark.parametrize("name", [name for name in BESIDE if "/model/" in name])
def test_a_size_is_that_of_the_class_it_names(name):
    """So that two models of equal size are told apart."""
    model = chosen(name)[0]
    assert content(FILES[name])["_target_"] == composed(model).model._target_


@pytest.mark.parametrize("key", ["learner.rule.rate", "optimizer.lr", "task.batch", "trainer.max_steps"])
def test_the_command_line_wins_over_what_was_tuned(key):
    cfg = composed("experiment=mnist_holdout", "learner=reptile", f"{key}=7")
    assert OmegaConf.select(cfg, key) == 7


def test_the_command_line_wins_over_a_size():
    cfg = composed("experiment=omniglot_to_mnist", "model=flow", "size=gpu", "model.maps=3", "task.batch=5")
    assert (cfg.model.maps, cfg.model.features, cfg.task.batch, cfg.task.val_episodes) == (3, 128, 5, 20)


@pytest.mark.parametrize("experiment", [None, "omniglot_start", "omniglot_nll_vae", "supervised_basenet"])
def test_metrics_are_chosen_by_their_names(experiment):
    """In place of those of the task and of the experiment, one or many, and added to."""
    before = [f"experiment={experiment}"] if experiment else []
    assert list(composed(*before, "metric=[recognised,coverage]").metrics) == ["recognised", "coverage"]
    assert list(composed(*before, "metric=fid").metrics) == ["fid"]
    usual = list(composed(*before).metrics)
    assert list(composed(*before, "+metric=kid").metrics) == [*usual, "kid"]


def test_a_task_has_its_metrics_and_an_experiment_another_choice():
    assert next(iter(composed("task=classify", "model=conv4").metrics)) == "accuracy"
    assert list(composed("task=supervised").metrics) == ["accuracy", "cross_entropy"]
    assert list(composed("experiment=omniglot_nll").metrics) == ["negative_elbo"]


def test_sweeps_over_metrics_learners_and_sizes_split_into_choices():
    words = ["metric=[fid],[recognised,kid]", "learner=reptile,transfer", "size=cpu,gpu"]
    parsed = OverridesParser.create().parse_overrides(words)
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    found = [composed("experiment=mnist_figr", *job) for job in jobs]
    assert len(jobs) == 8
    assert {tuple(cfg.metrics) for cfg in found} == {("fid",), ("recognised", "kid")}
    assert {(cfg.task.batch, cfg.model.channels) for cfg in found} == {(1, 16), (8, 16), (4, 32)}


def test_help_shows_the_choices_and_nothing_that_follows_from_them():
    text = overview(["experiment=mnist_holdout", "learner=reptile"])
    assert "learner.rule.rate=0.0003" in text
    assert "optimizer.lr=0.5" in text
    groups = re.findall(r"^  (\w+): ", text, re.M)
    assert {"experiment", "metric", "size"} <= set(groups)
    assert "family" not in groups
    line = next(line for line in text.splitlines() if line.startswith("  experiment: "))
    assert "/" not in line
