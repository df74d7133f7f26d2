"""Sweeps over choices that do not have the same keys."""

import pytest
from command_line import fails

from metagen.cli.hydra import of_every_job
from metagen.cli.main import run
from metagen.sweeps.local import LocalLauncher


def test_a_key_that_not_every_choice_has_is_named_with_those_that_lack_it(tmp_cwd, capsys):
    argv = ["train", "-m", "learner=scratch,amortized", "learner.rule.rate=0.1", "hydra.sweep.dir=here"]
    says = (
        "no key 'learner.rule.rate' with learner=amortized, which the others have: sweep learner=amortized by"
    )
    assert fails(argv, capsys, says) == 2
    assert list(tmp_cwd.iterdir()) == []


def test_a_key_that_no_choice_has_keeps_its_hint(tmp_cwd, capsys):
    argv = ["train", "-m", "learner=maml,fomaml", "learner.stps=1", "hydra.sweep.dir=here"]
    assert fails(argv, capsys, "no key 'learner.stps'; did you mean 'learner.steps'?") == 2
    assert list(tmp_cwd.iterdir()) == []


WORDS = [
    (["-m", "learner=maml,anil", "learner.rule.rate=0.1"], ["learner.rule.rate=choice(0.1)"]),
    (["learner=maml,anil", "-m", "learner.adapts=[a,b]"], ["learner.adapts=choice([a,b])"]),
    (["-m", "experiment=a,b", "task.shots=1"], ["task.shots=choice(1)"]),
    (["-m", "learner=maml,anil", "learner.rule.rate=0.1,0.2"], ["learner.rule.rate=0.1,0.2"]),
    (["-m", "learner=maml,anil", "model.channels=8", "hydra.launcher.jobs=1"], ["model.channels=8"]),
    (["-m", "learner=maml", "learner.rule.rate=0.1", "seed=1,2"], ["learner.rule.rate=0.1"]),
    (["learner=maml,anil", "learner.rule.rate=0.1"], ["learner.rule.rate=0.1"]),
    (["-m", "learner=maml,anil", "+learner.a=0.1", "~learner.x"], ["+learner.a=0.1", "~learner.x"]),
    (["-m", "hydra/sweeper=optuna", "learner=a,b", "learner.rule.rate=0.1"], ["learner.rule.rate=0.1"]),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "words"), WORDS)
def test_keys_of_a_swept_group_are_left_to_the_jobs(argv, words):
    assert set(words) <= set(of_every_job(argv))
    assert len(of_every_job(argv)) == len(argv)


def test_a_key_that_the_default_lacks_but_every_choice_has(tmp_cwd, monkeypatch):
    seen = []
    monkeypatch.setattr(LocalLauncher, "execute", lambda self, sweep, jobs, configs: seen.extend(configs))
    run(["train", "-m", "learner=scratch,reptile", "learner.rule.rate=0.125", "hydra.sweep.dir=here"])
    assert [config.learner.rule.rate for config in seen] == [0.125, 0.125]


@pytest.mark.parametrize("experiment", ["omniglot_to_mnist", "mnist_holdout", "quickstart"])
def test_learners_that_an_experiment_was_not_tuned_for_take_their_own_keys(experiment, tmp_cwd, monkeypatch):
    seen = []
    monkeypatch.setattr(LocalLauncher, "execute", lambda self, sweep, jobs, configs: seen.extend(configs))
    words = ["learner=maml,fomaml", "learner.steps=1", f"experiment={experiment}", "hydra.sweep.dir=here"]
    run(["train", "-m", *words])
    assert [config.learner.steps for config in seen] == [1, 1]
    assert [config.learner.gradient.first_order for config in seen] == [False, True]
