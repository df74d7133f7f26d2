"""The search by Optuna: its space, what it finds, what it goes on with, and what it ends early."""

import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import TrialState

from metagen.cli.main import run
from metagen.config.foreign import is_setting
from metagen.config.pruners import STARTUP, make_pruner
from metagen.config.tree import conf_dir
from metagen.errors import MetagenError, TrialPrunedError
from metagen.sweeps import process
from metagen.sweeps.samplers import make_sampler, told
from metagen.sweeps.space import space_of
from metagen.training.pruning import pruning
from metagen.variables import TRIAL

JOB = """
import json, math, os, sys
folder, fails, *overrides = sys.argv[1:]
values = dict(text.split("=", 1) for text in overrides)
if fails and os.path.exists("interrupt"):
    os.remove("interrupt")
    os.kill(os.getppid(), 2)
    import time
    time.sleep(20)
loss = (math.log10(float(values["optimizer.lr"])) + 2) ** 2 + (values["model.hidden"] != "32")
os.makedirs(folder, exist_ok=True)
if values["learner"] == "scratch":
    sys.exit("no luck")
found = {"negative_elbo": loss, "diversity": float(values["optimizer.lr"]), "recognised": 1 - loss}
found = {name: {"mean": mean} for name, mean in found.items()}
json.dump({"metrics": found}, open(f"{folder}/metrics.json", "w"))
"""
SEARCH = ["optimizer.lr=tag(log, interval(1e-4, 1e-1))", "model.hidden=choice(16,32)", "hydra.sweep.dir=here"]


@pytest.fixture
def quick_trials(tmp_cwd, monkeypatch):
    """Trials that are a formula: best at a rate of 1e-2 and a width of 32."""

    def script(sweep, job):
        return [
            sys.executable,
            "-c",
            JOB,
            str(sweep.path(job)),
            "1" if job.number == 3 else "",
            *job.overrides,
        ]

    monkeypatch.setattr(process, "command", script)
    return tmp_cwd


def search(*words, learner="maml"):
    return run(["train", "-m", "hydra/sweeper=optuna", f"learner={learner}", *SEARCH, *words])


def study():
    return optuna.load_study(study_name="metagen", storage="sqlite:///here/study.db")


def space(*words):
    return space_of(OverridesParser.create().parse_overrides(list(words)))


def test_a_space_has_what_the_overrides_say():
    found = space("a=1,2", "b=choice(x,'y z')", "c=range(1,8,2)", "d=range(0,1,0.25)", "e=interval(0,1.5)",
                  "f=tag(log, interval(1e-4,1e-1))", "g=int(interval(1,8))", "h=[1,2]")  # fmt: skip
    assert found.given == ["h=[1,2]"]
    d = found.searched
    assert d["a"].choices == ("1", "2")
    assert [len(d["b"].choices), d["b"].choices[0]] == [2, "x"]
    assert (d["c"].low, d["c"].high, d["c"].step) == (1, 7, 2)
    assert (d["d"].low, d["d"].high, d["d"].step) == (0, 0.75, 0.25)
    assert (d["e"].low, d["e"].high, d["e"].log) == (0, 1.5, False)
    assert (d["f"].low, d["f"].high, d["f"].log) == (1e-4, 1e-1, True)
    assert isinstance(d["g"], optuna.distributions.IntDistribution)
    assert found.overrides({"f": 0.1, "b": "'y z'"}) == ["h=[1,2]", "f=0.1", "b='y z'"]


@pytest.mark.parametrize("words", [["a=1"], ["a=range(1,1)"], ["a=tag(log, interval(0,1))"]])
def test_a_space_that_cannot_be_searched(words):
    with pytest.raises(MetagenError, match="search"):
        space(*words)


def test_a_search_finds_the_best_and_writes_it_as_an_experiment(quick_trials, capsys):
    assert search("hydra.sweeper.metric=negative_elbo", "hydra.sweeper.n_trials=8") == 0
    out = capsys.readouterr().out
    assert "8 trials done, 0 pruned, 0 failed" in out
    best = study().best_trial
    assert best.value == min(trial.value for trial in study().trials)
    chosen = OmegaConf.load("here/conf/experiment/best.yaml")
    assert chosen.optimizer.lr == best.params["optimizer.lr"]
    assert str(chosen.model.hidden) == best.params["model.hidden"]
    assert {"override /learner": "maml"} in OmegaConf.to_container(chosen.defaults)
    assert run(["train", "--config-dir", "here/conf", "experiment=best", "--cfg", "job"]) == 0
    assert "lr: " + str(best.params["optimizer.lr"]) in capsys.readouterr().out


@pytest.mark.slow
def test_a_search_goes_on_with_what_was_interrupted(quick_trials, capsys):
    Path("interrupt").touch()
    words = ["hydra.sweeper.metric=negative_elbo", "hydra.sweeper.n_trials=5"]
    assert search(*words) == 130
    assert "--resume" in capsys.readouterr().err
    before = {trial.number: trial.params for trial in study().trials}
    assert TrialState.RUNNING in {trial.state for trial in study().trials}
    assert run(["train", "-m", "--resume", "here"]) == 0
    after = study().trials
    assert len(after) == 5
    assert all(trial.state == TrialState.COMPLETE for trial in after)
    assert all(after[number].params == params for number, params in before.items())


@pytest.mark.slow
def test_several_objectives_give_a_front(quick_trials):
    assert search("hydra.sweeper.metric=[negative_elbo,diversity]", "hydra.sweeper.n_trials=6") == 0
    assert [one.name for one in study().directions] == ["MINIMIZE", "MAXIMIZE"]
    front = study().best_trials
    names = {path.stem for path in Path("here/conf/experiment").glob("*.yaml")}
    assert names == ({f"best_{trial.number}" for trial in front} if len(front) > 1 else {"best"})


def test_failed_trials_count_and_cost_nothing_else(quick_trials, capsys):
    assert search("hydra.sweeper.n_trials=2", learner="scratch") == 1
    assert "not one of 2 trials came to its end" in capsys.readouterr().err
    assert [trial.state for trial in study().trials] == [TrialState.FAIL] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.sweeper.metric=diversty"], "did you mean 'diversity'"),
        (["hydra.sweeper.n_trials=0"], "n_trials=0"),
        (["hydra/launcher=basic"], "hydra/launcher=queue"),
    ],
)
def test_a_mistake_gets_one_line(words, said, quick_trials, capsys):
    assert search(*words) in (1, 2)
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("direction", "worst"), [("minimize", True), ("maximize", True), ("minimize", False)]
)
def test_a_hopeless_trial_is_pruned(direction, worst, tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path}/study.db"
    made = optuna.create_study(study_name="metagen", storage=storage, direction=direction)

    def validate(number, loss):
        monkeypatch.setenv(TRIAL, f"{number}:{storage}")
        (callback,) = pruning()
        trainer = SimpleNamespace(callback_metrics={"val/loss": torch.tensor(loss)}, global_step=20,
                                  sanity_checking=False, is_global_zero=True)  # fmt: skip
        callback.on_validation_end(trainer, None)

    for i in range(STARTUP):
        made.ask()
        validate(i, 1.0 + i / 10)
        made.tell(i, 0.0)
    made.ask()
    if worst:
        with pytest.raises(TrialPrunedError, match="step 20"):
            validate(STARTUP, 9.0)
    else:
        validate(STARTUP, 0.5)
    assert process.state_of(TrialPrunedError.code) == "pruned"


def test_a_run_of_its_own_is_not_pruned(monkeypatch):
    monkeypatch.delenv(TRIAL, raising=False)
    assert pruning() == []


@pytest.mark.slow
def test_the_space_may_stand_in_the_configuration(quick_trials, tmp_path):
    folder = tmp_path / "mine" / "hydra" / "sweeper"
    folder.mkdir(parents=True)
    text = (conf_dir() / "hydra" / "sweeper" / "optuna.yaml").read_text()
    params = "params:\n  optimizer.lr: tag(log, interval(1e-4, 1e-1))\n  model.hidden: 16,32\n"
    (folder / "mine.yaml").write_text(text.replace("params: {}", params, 1))
    argv = ["train", "--config-dir", str(tmp_path / "mine"), "-m", "hydra/sweeper=mine", "learner=maml"]
    assert (
        run([*argv, "hydra.sweep.dir=here", "hydra.sweeper.n_trials=1", "hydra.sweeper.metric=diversity"])
        == 0
    )
    assert set(study().trials[0].params) == {"optimizer.lr", "model.hidden"}


def drawn(first, last, node=None, sampler_seed=3):
    """What is proposed for trials ``first`` to ``last`` of a study that knows the trials before."""
    found = optuna.create_study()
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for number in range(last):
        found.sampler = make_sampler(node, sampler_seed, number if number >= first else number + 1000, 1)
        assert told(found, found.ask(space), 0.5) == (
            node is not None and number == 3 and "Grid" in str(node)
        )
    return [trial.params["x"] for trial in found.trials]


@pytest.mark.parametrize("node", [None, {"_target_": "optuna.samplers.RandomSampler"}])
def test_a_study_that_goes_on_does_not_repeat_its_trials(node):
    """Eight trials at once and three, then five: the same, and no number twice."""
    whole = drawn(0, 8, node)
    assert len(set(whole)) == 8
    found = optuna.create_study()
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for _ in range(2):
        for _ in range(4):
            found.sampler = make_sampler(node, 3, len(found.trials), 1)
            found.tell(found.ask(space), 0.5)
    assert [trial.params["x"] for trial in found.trials] == whole
    assert drawn(0, 3, node, sampler_seed=4) != whole[:3]


def test_a_sampler_that_goes_in_order_keeps_its_seed():
    node = {"_target_": "optuna.samplers.GridSampler", "search_space": {"x": [0.0, 0.25, 0.5, 0.75]}}
    assert sorted(drawn(0, 4, node)) == [0.0, 0.25, 0.5, 0.75]


def test_a_pruner_by_its_class_and_what_is_none():
    node = {"_target_": "optuna.pruners.PercentilePruner", "percentile": 25.0}
    assert isinstance(make_pruner(node), optuna.pruners.PercentilePruner)
    assert isinstance(make_pruner(None), optuna.pruners.MedianPruner)
    with pytest.raises(MetagenError, match="a configuration may name"):
        make_pruner({"_target_": "os.system"})
    with pytest.raises(MetagenError, match="sampler of Optuna"):
        make_sampler({"_target_": "optuna.pruners.MedianPruner"}, 0, 0, 1)


def test_hydra_makes_no_sampler_by_itself():
    """It would call whatever a node names; here it is checked first."""
    config = OmegaConf.load(Path(conf_dir()) / "hydra/sweeper/optuna.yaml")
    assert config._recursive_ is False
    names = ("optuna.samplers.CmaEsSampler", "optuna.pruners.HyperbandPruner")
    assert all(is_setting("hydra.sweeper.sampler._target_", name) for name in names)
    strange = ("os.system", "optuna.samplers._base.os.system", "optuna.samplersX.Y")
    assert not any(is_setting("hydra.sweeper.pruner._target_", name) for name in strange)
