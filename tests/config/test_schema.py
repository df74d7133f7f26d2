"""Every mistake in a configuration gets one line, wherever it was made, before anything is loaded."""

import re
from pathlib import Path

import pytest
from command_line import fails
from processes import QUICK

from metagen.cli.main import run
from metagen.config.help import comments, keys, overview
from metagen.config.tree import conf_dir

GLOBAL = "# @package _global_\n"
LEARNER = "_target_: metagen.learners.meta_learner.MetaLearner\n"
START = "start:\n  _target_: metagen.learners.starts.Theta\n"
RULE = START + "rule:\n  _target_: metagen.learners.rules.Sgd\n  rate: 0.1\n"
FILES = {
    "experiment/unknown": (GLOBAL + "task:\n  shost: 3\n", ["task.shost", "did you mean 'shots'"]),
    "experiment/unknown_global": (GLOBAL + "sede: 3\n", ["sede", "did you mean 'seed'"]),
    "experiment/type": (GLOBAL + "task:\n  shots: many\n", ["task.shots=many", "a whole number"]),
    "experiment/interpolation": (GLOBAL + "task:\n  shots: ${task.shost}\n", ["task.shost", "not found"]),
    "experiment/syntax": (GLOBAL + "task:\n  shots: [1\n", ["syntax.yaml, line 4", "no YAML"]),
    "experiment/tab": (GLOBAL + "task:\n\tshots: 1\n", ["tab.yaml, line 3", "no YAML"]),
    "experiment/choice": (GLOBAL + "defaults:\n  - override /learner: mmaml\n", ["'mmaml'", "'maml'"]),
    "experiment/group": (GLOBAL + "defaults:\n  - override /lerner: maml\n", ["'lerner'", "'learner'"]),
    "experiment/place": ("task:\n  shots: 3\n", ["# @package _global_"]),
    "experiment/together": (GLOBAL + "defaults:\n  - override /model: conv4\n", ["cannot generate", "vae"]),
    "learner/unknown": (LEARNER + RULE + "step: 1\n", ["learner.step ", "did you mean 'steps'"]),
    "learner/type": (LEARNER + RULE + "steps: 1.5\n", ["learner.steps=1.5", "a whole number"]),
    "learner/node": (LEARNER + "rule: 3\n", ["learner.rule=3", "Rule"]),
    "learner/absent": (LEARNER + "steps: 1\n", ["learner.start is missing"]),
    "learner/mandatory": (LEARNER + RULE + "steps: ???\n", ["learner.steps", "has no value"]),
    "learner/nested": (LEARNER + RULE + "  rte: 0.1\n", ["learner.rule.rte", "did you mean 'rate'"]),
    "learner/target": (LEARNER.replace("Learner\n", "Lerner\n"), ["MetaLerner", "cannot be imported"]),
    "learner/nothing": ("steps: 1\n", ["learner", "_target_"]),
    "learner/value": (LEARNER + RULE + "steps: -1\n", ["learner.steps=-1", "from 0 to"]),
}  # fmt: skip


@pytest.fixture
def no_data(monkeypatch):
    """Nothing is loaded before the mistake is found."""

    def load(cfg):
        raise AssertionError("the data were loaded")

    monkeypatch.setattr("metagen.jobs.build.load_data", load)


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_file_of_the_users_own(name, tmp_cwd, capsys, monkeypatch, no_data):
    text, words = FILES[name]
    path = Path("own", f"{name}.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    argv = ["train", "--config-dir", "own", name.replace("/", "=")]
    monkeypatch.setattr("sys.argv", ["metagen", *argv])
    assert fails(argv, capsys, *words) in (1, 2)
    assert list(tmp_cwd.iterdir()) == [tmp_cwd / "own"]


LINES = [
    (["task.shost=1"], ["task.shost", "task.shots"]),
    (["task.shots=1.5"], ["task.shots=1.5", "a whole number"]),
    (["task.shots="], ["task.shots=", "a whole number"]),
    (["task.shots=null"], ["task.shots", "a whole number"]),
    (["learner=maml", "learner.rule.rate=fast"], ["learner.rule.rate=fast", "a number"]),
    (
        ["experiment=mnist_holdot"],
        ["did you mean 'mnist_holdout'", "quickstart_deformation, supervised_basenet)"],
    ),
    (["experiment=null"], ["experiment=null", "choice"]),
    (["metric=[recognised,coverag]"], ["metric has no choice 'coverag'", "did you mean 'coverage'"]),
    (["metric=[]"], ["metric", "metric=[recognised,coverage]"]),
    (["metric@task.metric=[fid]"], ["metric@task.metric", "it is metric now"]),
    (["metric=[coverage]", "metrics.coverage.images=fake"], ["samples, real, relative"]),
    (["seed=x"], ["seed=x"]),
    (["+foo=1"], ["foo"]),
    (["task=3"], ["task=3", "choice"]),
    (["learner=null"], ["learner=null", "choice"]),
    (["learner=[maml"], ["learner=[maml"]),
    (["seed"], ["'seed'", "key=value"]),
    (["-x"], ["'-x'", "--help"]),
    (["--resum", "run"], ["'--resum'", "'--resume'"]),
    (["--config-dir", "nowhere"], ["nowhere"]),
    (["vectorize=always"], ["vectorize=always", "auto, loop, vmap"]),
    (["checkpoint_every=-3"], ["checkpoint_every=-3"]),
    (["max_skips=-1"], ["max_skips=-1"]),
    (["optimizer.lr=fast"], ["optimizer.lr=fast", "a number"]),
    (["optimizer.lr=-1"], ["optimizer", "-1"]),
    (["scheduler.factor=7"], ["scheduler.factor=7", "from 0 to 1"]),
    (["learner=supervised"], ["learner=maml"]),
    (["task=classify", "model=conv4", "learner=amortized"], ["model=vae"]),
    (["trainer.max_steps=many"], ["trainer.max_steps=many"]),
    (["trainer.max_stepz=1"], ["trainer.max_stepz", "trainer.max_steps"]),
    (["trainer.precision=8"], ["trainer.precision=8", "32-true"]),
    (
        ["learner=maml", "learner.rule._target_=metagen.learners.rules.Adm"],
        ["learner.rule._target_=metagen.learners.rules.Adm", "has no Adm; did you mean 'Adam'"],
    ),
    (["callbacks.ema.decay=0.9"], ["choose callbacks=ema first", "callbacks=[ema]"]),
    (["callbacks.emma.decay=0.9"], ["callbacks.emma.decay", "did you mean 'ema'"]),
    (["+metric._target_=metagen.metrics.kid.Kid"], ["'# @package metrics.NAME'"]),
    (
        ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/recognised"],
        ["val/recognised, which is not logged", "val/loss"],
    ),
]


@pytest.mark.parametrize(("argv", "words"), LINES, ids=lambda value: " ".join(value))
def test_a_mistake_in_a_command_line(argv, words, tmp_cwd, capsys, monkeypatch):
    monkeypatch.setattr("metagen.jobs.build.load_data", lambda cfg: pytest.fail("the data were loaded"))
    monkeypatch.setattr("sys.argv", ["metagen", "train", *argv])
    assert fails(["train", *argv], capsys, *words) in (1, 2)
    assert list(tmp_cwd.iterdir()) == []


OUT_OF_RANGE = [
    (["seed=18446744073709551616"], ["seed=18446744073709551616", "2^32"]),
    (["samples=0"], ["samples=0", "from 1"]),
    (["checkpoint_every=nan"], ["checkpoint_every=nan"]),
    (["learner=maml", "learner.rule.rate=nan"], ["learner.rule.rate=nan", "above 0"]),
    (["judge.lr=nan"], ["judge.lr=nan"]),
    (["learner=learned_optimizer_mlp", "learner.rule.base.beta1=-1"], ["beta1=-1", "0 to below 1"]),
    (["model=vae_attention", "model.aggregate.size=0"], ["model.aggregate.size=0"]),
    (["task.augment=[shift]"], ["task.augment", "a list"]),
    (["task=classify", "model=conv4", "learner=maml", "model.channels=0"], ["model.channels=0"]),
    (["task=classify", "model=conv4", "learner=maml", "model.channels=3"], ["data.channels=3"]),
    (["data.size=30"], ["model.size=30", "a multiple of 4"]),
    (["learner=learned_optimizer", "learner.steps=0"], ["learner.steps=0"]),
    (["trainer.check_val_every_n_epoch=0"], ["check_val_every_n_epoch=0"]),
    (["trainer.devices=1.5"], ["trainer.devices=1.5"]),
    (["trainer.log_every_n_steps=0"], ["log_every_n_steps=0"]),
    (["+optimizer.betas=[0.9,1.5]"], ["optimizer.betas", "a list of 2"]),
    (["+learner.meta_loss.args=1"], ["learner.meta_loss.args"]),
    (["+model._partial_=true"], ["model._partial_"]),
    (["learner=maml", "+learner.rule._partial_=true"], ["learner.rule", "Rule"]),
    (["+metrics.recognised._partial_=true"], ["metrics.recognised._partial_"]),
    (["learner=maml", "learner._target_=metagen.learners.rules.Sgd"], ["learner"]),
    (["judge._target_=metagen.metrics.kid.Kid"], ["judge"]),
    (["metrics=null"], ["metric"]),
    (["~judge"], ["judge", "_target_"]),
    (["~samples"], ["samples is missing"]),
    (["~metrics.recognised.among", "+metrics.recognised.k=3"], ["metrics.recognised.k"]),
    (["task=classify", "model=conv4", "learner=maml", "metric=[fid]"], ["fid", "samples"]),
    (["task.batch=1000000000000"], ["task.batch", "1,000,000,000"]),
    (["task.batch=1000000000"], ["task.batch", "GiB"]),
    (["samples=1000000000"], ["samples", "GiB"]),
    (["model.hidden=65536", "model.features=65536"], ["GiB", "weights"]),
    (["tuned=nope"], ["tuned"]),
    (["family=nope"], ["family has no choice 'nope'"]),
    (["experiment@model=nope"], ["experiment has no choice 'nope'"]),
    (["hydra.launcher.jobs=3"], ["hydra.launcher.jobs=3", "add -m"]),
    (["hydra/sweeper=optuna"], ["hydra/sweeper=optuna", "add -m"]),
    (["hydra.mode=MULTIRUN"], ["hydra.mode=MULTIRUN", "add -m"]),
    (["+hydra.job.env_set.A=1"], ["hydra.job.env_set"]),
    (["+hydra.callbacks.x=1"], ["hydra.callbacks"]),
    (["+seed=1"], ["seed has a value already: leave the +"]),
    (["+size=gpu"], ["size has a choice already: leave the +"]),
    (["~logger"], ["~logger", "logger=null"]),
    (["hydra.mode=nope"], ["hydra.mode=nope"]),
    (["--up-to", "3"], ["--up-to 3", "-m"]),
    (["-m", "--force", "seed=0,1"], ["--force"]),
    (["-m", "seed=range(0,1000000)"], ["1,000,000 jobs", "--up-to 1000000"]),
    (["-m", "samples=4,0"], ["job 1 (samples=0): samples=0"]),
    (["-m", "seed=0,1", "hydra.sweeper.max_batch_size=0"], ["hydra.sweeper.max_batch_size=0"]),
    (["-m", "seed=0,1", "hydra.launcher.jobs=0"], ["hydra.launcher.jobs=0"]),
    (["metric=[coverage]", "samples=3"], ["metric coverage is undefined", "3 drawn"]),
    (["metric=[coverage]", "metrics.coverage.k=40"], ["metric coverage is undefined", "a k of it lower"]),
    (["judge=protonet", "metric=[recognised]"], ["judge=protonet", "judge=basenet"]),
    (["callbacks=[ema]", "callbacks.ema.decay=2"], ["callbacks.ema.decay=2", "0 to below 1"]),
    (["logger=[wandb]", "logger.wandb.id=nan"], ["logger.wandb.id"]),
    (["logger=[csv]", "logger.csv.name=../away"], ["logger.csv.name=../away"]),
    (["learner=imaml", "learner.gradient.cg_steps=1000000000"], ["cg_steps=1000000000", "1 to 1,000"]),
    (["size_of=nope"], ["size_of"]),
    (["+hydra.nope=1"], ["hydra.nope"]),
]


@pytest.mark.parametrize(("argv", "words"), OUT_OF_RANGE, ids=lambda value: " ".join(value))
def test_what_is_out_of_range_is_refused_before_data_are_loaded(argv, words, tmp_cwd, capsys, no_data):
    assert fails(["train", *argv], capsys, *words) == 2
    assert list(tmp_cwd.iterdir()) == []


@pytest.mark.parametrize("override", ["trainer.accelerator=tpu9", "trainer.max_time=soon"])
def test_what_lightning_refuses_gets_one_line(override, tmp_cwd, capsys):
    assert fails(["train", *QUICK, override], capsys, "trainer", override.partition("=")[2]) == 2


GROUPS = {
    group.name: sorted(path.stem for path in group.glob("*.yaml"))
    for group in conf_dir().iterdir()
    if group.is_dir() and group.name not in ("hydra", "experiment", "family", "size", "metric")
}


@pytest.mark.parametrize("index", range(max(map(len, GROUPS.values()))))
def test_every_key_is_explained(index):
    """By a comment or under ``Args``; a key that holds a node of its own explains itself by its class."""
    metrics = ",".join(path.stem for path in conf_dir().glob("metric/*.yaml"))
    choices = [f"{group}={names[index % len(names)]}" for group, names in GROUPS.items()]
    found = keys([f"metric=[{metrics}]", *choices])
    silent = [key.path for key in found if not key.text and not is_node(key)]
    assert not silent, f"say in conf/ or in the class what these are: {silent}"


def is_node(key):
    return key.value is None if "." not in key.path else isinstance(key.value, str) and "." in key.value


def test_help_shows_the_choices_that_are_made():
    text = overview(["learner=maml_plus_plus"])
    assert re.search(r"^  learner\.meta_loss\.early\.steps=\d+ +\w+", text, re.M)
    assert re.search(r"^  seed=0 +of the initialisation", text, re.M)
    assert "learner.rule" in text
    assert all(len(line) <= 110 for line in text.splitlines())
    for group in ("data", "learner", "experiment", "metric"):
        assert re.search(rf"^  {group}: ", text, re.M)


def test_comments_are_read_by_path(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1   # one\nb:  # two\n  c: x#y\n  d: [1]   # three: 3\ne: 2\n# f: 3\n")
    assert comments(path) == {"a": "one", "b": "two", "b.d": "three: 3"}


def test_help_of_a_mistake(tmp_cwd, capsys):
    assert fails(["train", "learner=mmaml", "--help"], capsys, "'maml'") == 2
    assert run(["train", "learner=maml", "--help"]) == 0
    assert "learner.rule.rate=" in capsys.readouterr().out
