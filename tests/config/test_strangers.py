"""A folder, checkpoint or configuration that somebody sent can at most fail: each way that was tried."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from command_line import fails
from omegaconf import OmegaConf
from processes import QUICK
from test_trusted import WAYS, honest, sent  # noqa: F401

from metagen.cli.main import run
from metagen.config.foreign import check_command_line, check_hydra, check_job
from metagen.config.interpolations import COMPUTED, asked, check_interpolations, literal
from metagen.config.saved import saved_overrides
from metagen.config.trusted import instantiate
from metagen.errors import MetagenError
from metagen.reading import check_writable, opened, read_json, read_yaml
from metagen.sweeps.adopt import adopted
from metagen.sweeps.plan import Job, JobRecord, Sweep
from metagen.sweeps.process import command

TOUCH = "{_target_: pathlib.Path.touch, _args_: [{_target_: pathlib.Path, _args_: [taken]}]}"
SIX = pytest.mark.parametrize("way", WAYS[:4], ids=lambda way: " ".join(way)[:25])
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


def unfinished(way):
    """Resuming has something to do only where the run has not come to its end."""
    if way[1] == "--resume":
        os.remove("run/metrics.json")


@pytest.fixture
def quick():
    """Fail where something takes longer than it should: what hangs must not hang the tests."""
    import signal

    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("text", [f"${{oc.create:{TOUCH}}}", "${oc.env:SECRET}"])
def test_a_text_is_not_resolved_when_the_object_is_made(text, tmp_cwd, monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    node = OmegaConf.create({"_target_": "metagen.data.digits.Digits", "root": "\\" + text})
    assert str(instantiate(node, "data").root) == text
    assert not Path("taken").exists()


def test_a_node_within_a_text_is_not_made(tmp_cwd):
    node = {"_target_": "metagen.models.vae.VAE", "aggregate": f"${{oc.create:{TOUCH}}}"}
    with pytest.raises(MetagenError):
        instantiate(node, "model")
    assert not Path("taken").exists()


def test_objects_are_made_from_plain_values():
    made = instantiate(
        OmegaConf.create({"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.Linear",
                          "_args_": [2, 3]}, {"_target_": "torch.nn.ReLU", "inplace": True}]})
    )  # fmt: skip
    assert [type(one).__name__ for one in made] == ["Linear", "ReLU"]
    partial = instantiate({"_target_": "torch.optim.Adam", "_partial_": True, "betas": [0.5, 0.9]})
    assert partial(made.parameters()).defaults["betas"] == (0.5, 0.9)
    assert instantiate({"a": [{"_target_": "torch.nn.ReLU"}]})["a"][0].inplace is False

    with pytest.raises(MetagenError, match=r"model\.inner: .*width"):
        instantiate({"inner": {"_target_": "torch.nn.ReLU", "width": 3}}, "model")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("${a.b} ${.c} text $x {y}", []),
        ("${now:%Y}/${hydra:job.num}", ["now", "hydra"]),
        ("${oc.env:HOME}", ["oc.env:HOME"]),
        ("${ oc.env : HOME , x }", ["oc.env:HOME"]),
        ("${oc.env:'HOME'}", ["oc.env:"]),
        ("${oc.env:METAGEN_DATA,${oc.env:HOME}}", ["oc.env:METAGEN_DATA", "oc.env:HOME"]),
        ("\\${oc.create:{a: 1}}", ["oc.create"]),
        ("${oc.${x}:HOME}", [COMPUTED]),
        ("${${x}.y}", [COMPUTED]),
    ],
)
def test_what_a_text_asks_for(text, names):
    assert list(asked(text)) == names


def test_any_text_is_kept_by_one_resolution():
    pieces = ["\\", "$", "{", "}", "a", ":", "${", "\\${", "'", "oc.env:HOME"]
    texts = [a + b + c + d for a in pieces for b in pieces for c in pieces for d in pieces[::3]]
    assert OmegaConf.to_container(OmegaConf.create(literal(texts)), resolve=True) == texts


def test_secrets_are_asked_for_by_the_command_line_alone(monkeypatch):
    node = {"data": {"root": "${oc.env:SECRET}"}}
    for written in ([], ["data.root=${oc.env:OTHER}"]):
        with pytest.raises(MetagenError, match=r"METAGEN_ALLOW=oc\.env:SECRET"):
            check_interpolations(node, "x.yaml", written)
    check_interpolations(node, "x.yaml", ["data.root=${oc.env:SECRET}"])
    check_interpolations({"a": "${oc.env:METAGEN_DATA,data}", "b": ["${seed}"]}, "x.yaml")
    monkeypatch.setenv("METAGEN_ALLOW", "mine, oc.env:SECRET")
    check_interpolations(node, "x.yaml")


@SIX
@pytest.mark.parametrize(
    "value",
    [f"\\${{oc.create:{TOUCH}}}", f"${{oc.create:{TOUCH}}}", "${oc.env:SECRET}", "${oc.decode:${seed}}"],
    ids=["escaped", "create", "secret", "decode"],
)
@pytest.mark.parametrize("place", ["overrides", "config"])
def test_an_interpolation_in_a_saved_configuration(place, value, way, sent, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SECRET", "hidden")
    path = sent / ".hydra" / f"{place}.yaml"
    word = json.dumps(f"model.aggregate='{value}'")
    path.write_text(path.read_text() + {"overrides": f"- {word}\n", "config": f"extra: '{value}'\n"}[place])
    unfinished(way)
    code = run(way)
    shown = capsys.readouterr()
    assert code == 1
    assert "asks for ${oc." in shown.err
    assert "hidden" not in shown.out + shown.err
    assert not Path("taken").exists()


EVIL = {
    "callback": "hydra:\n  callbacks:\n    evil:\n      _target_: mischief.Thing\n",
    "variable": "hydra:\n  job:\n    env_set:\n      METAGEN_ALLOW: os\n",
    "log file": "hydra:\n  job_logging:\n    handlers:\n      file:\n        filename: taken\n",
    "log class": "hydra:\n  job_logging:\n    handlers:\n      file:\n        (): mischief.Thing\n",
    "folder": "hydra:\n  run:\n    dir: /tmp/taken\n",
    "folder by a value": "seed: ../../taken\nhydra:\n  run:\n    dir: outputs/${seed}\n",
    "other overrides": "hydra:\n  overrides:\n    task: ['+hydra.callbacks={}']\n",
    "launcher": "hydra:\n  launcher:\n    jobs:\n      _target_: mischief.Thing\n",
    "launcher class": "hydra:\n  launcher:\n    _target_: mischief.Thing\n",
    "sweeper class": "hydra:\n  sweeper:\n    _target_: mischief.Thing\n",
    "search space": "hydra:\n  sweeper:\n    params:\n      +hydra.callbacks: '{a: 1}'\n",
    "secret": "data:\n  root: ${oc.env:SECRET}\n",
    "created": "model:\n  aggregate: ${oc.create:${seed}}\n",
    "computed": "data:\n  root: ${oc.${seed}:SECRET}\n",
    "bomb": BOMB,
}


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_an_experiment_of_a_folder_of_configurations(text, sweep, tmp_cwd, capsys, monkeypatch, quick):
    (tmp_cwd / "mischief.py").write_text("import os\nos.mkdir('taken')\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_cwd))
    monkeypatch.setenv("SECRET", "hidden")
    (tmp_cwd / "conf" / "experiment").mkdir(parents=True)
    (tmp_cwd / "conf" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}")
    before = sorted(tmp_cwd.rglob("*"))
    words = ["train", "--config-dir", "conf", "experiment=evil", *QUICK, *sweep]
    line = fails(words, capsys, "")
    assert line == 1
    assert sorted(tmp_cwd.rglob("*")) == before
    assert "METAGEN_ALLOW" not in os.environ


def test_a_pipe_among_configurations(tmp_cwd, capsys, quick):
    (tmp_cwd / "conf" / "experiment").mkdir(parents=True)
    os.mkfifo(tmp_cwd / "conf" / "experiment" / "evil.yaml")
    assert fails(["train", "--config-dir", "conf", "experiment=evil"], capsys, "no regular file") == 1


def test_an_honest_folder_of_configurations(tmp_cwd, capsys):
    (tmp_cwd / "conf" / "experiment").mkdir(parents=True)
    (tmp_cwd / "conf" / "experiment" / "good.yaml").write_text(
        "# @package _global_\ndata:\n  root: ${oc.env:METAGEN_DATA,data}\n"
        "model:\n  hidden: ${model.channels}\n"
        "hydra:\n  run:\n    dir: outputs/good/${seed}\n  launcher:\n    jobs: 2\n  sweeper: {}\n"
    )
    words = ["--config-dir", "conf", "experiment=good", "judge.cache=${oc.env:HOME}", "hydra.verbose=true"]
    check_command_line(words)
    check_command_line(["-m", *words, "seed=0,1"])
    check_command_line(["experiment=omniglot_start", "hydra.searchpath=[file://conf]"])
    assert run(["train", *words, "--cfg", "job"]) == 0


@pytest.mark.parametrize("words", [["--config-path", "conf"], ["--experimental-rerun", "a.pickle"]])
def test_options_that_would_run_what_a_file_says(words, tmp_cwd, capsys):
    assert fails(["train", *words], capsys, words[0]) == 2


def test_a_job_of_a_sweep_keeps_the_sweeps_hydra():
    from hydra import compose, initialize_config_dir

    from metagen.config.tree import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        base = compose("config", return_hydra_config=True)
        good = compose("config", ["seed=1", "hydra.sweep.subdir=7"], return_hydra_config=True)
        evil = compose("config", ["+hydra.job.env_set.A=b"], return_hydra_config=True)
    check_job(good, base)
    evil.hydra.overrides.hydra = []
    with pytest.raises(MetagenError, match=r"hydra.job.env_set.A"):
        check_job(evil, base)
    plain = OmegaConf.to_container(base, enum_to_str=True)
    check_hydra(plain, plain["hydra"], [])


@pytest.fixture
def sweep(tmp_path):
    plan = Sweep(tmp_path / "sent", "train", ["seed=0,1"], [], [], str(tmp_path), [Job(0, "0", ["seed=0"])])
    plan.root.mkdir()
    plan.save()
    return plan


def altered(sweep, **fields):
    path = sweep.root / "jobs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return sweep.root


def test_what_a_sweep_that_was_sent_may_run(sweep):
    kept = [
        "hydra/launcher=slurm", "hydra.launcher.devices=[0,1]", "hydra.launcher.partition=gpu",
        "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.verbose=true", "hydra.sweep.dir='a b'",
    ]  # fmt: skip
    dropped = [
        "+hydra.callbacks={evil:{_target_:mischief.Thing}}", "+hydra.job.env_set={METAGEN_ALLOW:os}",
        "hydra.launcher._target_=mischief.Thing", "+hydra.launcher.jobs={_target_:mischief.Thing}",
        "hydra/launcher=../../evil", "hydra.launcher.setup=[rm -r x]", "hydra.launcher.partition='a\\nrm'",
        "hydra.launcher.additional_parameters={wrap: x}", "hydra.searchpath=[file:///tmp]",
        "hydra/callbacks=x",
        "hydra.sweeper.params={+hydra.callbacks: 1}", "hydra.launcher.name=${oc.env:HOME}", "=",
        "--config-dir=/x",
    ]  # fmt: skip
    evil = ["learner=/tmp/evil", "hydra.job.chdir=true", "-m", "learner=maml,../evil"]
    altered(
        sweep, hydra=[*kept, *dropped], flags=["--config-dir", "mine"], arguments=["seed=0,1", *evil],
        jobs=[{"number": 0, "folder": "0", "overrides": ["seed=0", *evil[:3]]}], study="mysql://evil/db",
    )  # fmt: skip
    plan = adopted(sweep.root)
    assert plan.hydra == kept
    assert plan.arguments == ["seed=0,1"]
    assert plan.jobs[0].overrides == ["seed=0"]
    assert plan.study == f"sqlite:///{sweep.root}/study.db"
    assert plan.flags == ["--config-dir", "mine"]
    assert adopted(altered(sweep, flags=["--config-path", "x"])).flags == []


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "instantiate"},
        {"task": "--resume"},
        {"run": "+hydra.job_logging={}"},
        {"task": "evaluate", "run": "-m"},
        {"jobs": [{"number": "../x", "folder": "0", "overrides": []}]},
        {"jobs": [{"number": 0, "folder": "../x", "overrides": []}]},
        {"jobs": [{"number": 0, "folder": "/tmp/x", "overrides": []}]},
        {"jobs": [{"number": 0, "folder": "0", "overrides": [{"a": 1}]}]},
        {"hydra": "abc"},
        {"jobs": [{"number": 0, "folder": "0", "overrides": ["data.root=${oc.env:SECRET}"]}]},
    ],
)
def test_a_sweep_that_was_sent_is_refused(fields, sweep, capsys):
    root = altered(sweep, **fields)
    before = sorted(root.rglob("*"))
    assert fails(["train", "-m", "--resume", str(root)], capsys, "") == 1
    assert sorted(root.rglob("*")) == before


def test_a_record_of_a_job_that_is_none(sweep, caplog):
    job = sweep.jobs[0]
    sweep.write_record(job, JobRecord("failed", "it broke", 1.0, 2.0, "host", None, 3))
    assert sweep.record(job).threads == 3
    for text in ("[]", "{", '{"state": 3}', '{"threads": "3; x"}', '{"other": 1}', "[" * 100_000):
        (sweep.root / "jobs" / "0.json").write_text(text)
        assert sweep.record(job).state == "lost"
        assert "cannot be read" in caplog.text
        caplog.clear()


def test_jobs_do_not_import_from_their_working_directory(sweep, tmp_path):
    for name in ("antlr4", "statistics", "hydra_plugins_x"):
        (tmp_path / f"{name}.py").write_text("import os\nos.mkdir('taken')\n")
    words = command(sweep, sweep.jobs[0])
    start = words[: words.index("metagen.cli.job") + 1]
    done = subprocess.run(
        [*start, "train", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "model.hidden" in done.stdout
    assert not (tmp_path / "taken").exists()


def test_ranks_do_not_import_from_their_working_directory(tmp_cwd):
    from metagen.jobs import ddp

    (tmp_cwd / "antlr4.py").write_text("import os\nos.mkdir('taken')\n")  # which omegaconf imports
    process = ddp._start("no JSON", 1)
    process.communicate(timeout=120)
    assert process.args[1:] == ["-P", "-m", "metagen.cli.rank"]
    assert process.returncode == 1
    assert not Path("taken").exists()


def test_workers_of_a_cluster_are_started_in_isolation(monkeypatch):
    from metagen.sweeps.remote import _isolated

    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with _isolated():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]\n",
        "[" * 50_000,
        "a: !!python/object/apply:os.system [x]\n",
        "a: [1\n",
        "? [a]\n: 1\n",
    ],
)
def test_a_yaml_that_grows_is_refused(text, tmp_path, quick):
    (tmp_path / "x.yaml").write_text(text)
    clock = time.monotonic()
    with pytest.raises(MetagenError, match=r"x\.yaml"):
        read_yaml(tmp_path / "x.yaml")
    assert time.monotonic() - clock < 10


def test_an_honest_yaml_is_read_as_omegaconf_reads_it(tmp_path):
    text = "a: 1e-3\nb: &b {c: [1, yes]}\nd: *b\ne: ${a}\nf: 2020-01-01\n"
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml") == OmegaConf.to_container(OmegaConf.create(text))


@SIX
@pytest.mark.parametrize("name", ["config", "overrides"])
@pytest.mark.parametrize("kind", ["bomb", "pipe", "device"])
def test_a_configuration_without_end(kind, name, way, sent, capsys, quick):  # noqa: F811
    path = sent / ".hydra" / f"{name}.yaml"
    path.unlink()
    if kind == "bomb":
        path.write_text(BOMB)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    unfinished(way)
    assert fails(way, capsys, "") == 1


@pytest.mark.parametrize("kind", ["pipe", "device", "deep"])
def test_a_record_without_end(kind, sent, capsys, quick):  # noqa: F811
    path = sent / "metrics.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("[" * 1_000_000)
    assert run(["list", "run"]) == 0
    assert "broken" in capsys.readouterr().out
    for way in (["compare", "run"], ["reproduce", "run"]):
        assert fails(way, capsys, "") == 1


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2], WAYS[4]], ids=lambda way: " ".join(way)[:25])
def test_a_checkpoint_without_end(way, sent, capsys, quick):  # noqa: F811
    (sent / "checkpoints" / "best.ckpt").unlink()
    os.mkfifo(sent / "checkpoints" / "best.ckpt")
    assert fails(way, capsys, "checkpoint") == 1


def test_a_checkpoint_that_is_more_than_it_seems(tmp_path):
    import zipfile

    from metagen.training.checkpoints import read_checkpoint

    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b"0" * 10_000_000)
    with pytest.raises(MetagenError, match="no readable checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_a_picture_without_end(kind, tmp_path, quick):
    from metagen.data import user_pictures

    path = tmp_path / "a" / "0.png"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(user_pictures.MAX_BYTES + 1)
    with pytest.raises(MetagenError, match="regular file" if kind != "large" else "bytes"):
        user_pictures.read_classes(tmp_path)


def test_only_regular_files_are_read(tmp_path, quick):
    (tmp_path / "x").write_bytes(b"12345")
    with opened(tmp_path / "x", 5) as file:
        assert file.read() == b"12345"
    with pytest.raises(MetagenError, match="5 bytes, more than 4"), opened(tmp_path / "x", 4):
        pass
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(MetagenError, match="no regular file"), opened(path):
            pass
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


@pytest.mark.parametrize("name", ["metagen.log", ".hydra/resumed", "checkpoints/last.ckpt"])
def test_a_link_in_a_run_is_not_written_through(name, sent, tmp_cwd, capsys):  # noqa: F811
    own = tmp_cwd / "precious"
    own.mkdir() if name.endswith("resumed") else own.write_text("mine")
    path = sent / name
    path.unlink(missing_ok=True)
    path.symlink_to(own)
    os.remove("run/metrics.json")
    assert fails(["train", "--resume", "run"], capsys, "is a link to") == 1
    assert own.read_text() == "mine" if own.is_file() else not list(own.iterdir())


def test_links_within_a_folder_stay(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "itself").symlink_to("itself")
    check_writable(tmp_path)
    (tmp_path / "c").symlink_to("../elsewhere")
    with pytest.raises(MetagenError, match="is a link to"):
        check_writable(tmp_path)


@pytest.mark.parametrize(("argv", "words"), [
    (["train", "--resume", "pets"], "name the folder of a run"),
    (["train", "-m", "--resume", "pets"], "no sweep's folder"),
])  # fmt: skip
def test_a_folder_of_pictures_is_no_run_whatever_its_links(argv, words, tmp_cwd, capsys):
    (tmp_cwd / "pets").mkdir()
    for name, target in (("x", "x"), ("y", "nowhere"), ("z", "/nowhere")):
        (tmp_cwd / "pets" / name).symlink_to(target)
    fails(argv, capsys, words)


def test_a_sweep_is_not_written_through_a_link(sweep, tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    (sweep.root / "jobs").mkdir()
    (sweep.root / "jobs" / "0.log").symlink_to(tmp_path / "precious")
    assert fails(["train", "-m", "--resume", str(sweep.root)], capsys, "is a link to") == 1
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_refusal_names_one_class_and_no_module(tmp_path):
    with pytest.raises(MetagenError, match=r"METAGEN_ALLOW=os\.system "):
        instantiate({"_target_": "os.system"}, "model")


def test_what_a_trusted_package_has_imported_is_not_trusted(tmp_cwd, monkeypatch):
    Path("mine_too.py").write_text("import os\nfrom os import mkdir\nclass Net: pass\ndef make(): return 3\n")
    monkeypatch.syspath_prepend(str(tmp_cwd))
    monkeypatch.setenv("METAGEN_ALLOW", "mine_too")
    assert instantiate({"_target_": "mine_too.make"}) == 3
    for name in ("mine_too.os.mkdir", "mine_too.mkdir"):
        with pytest.raises(MetagenError, match=f"METAGEN_ALLOW={name}"):
            instantiate({"_target_": name, "_args_": ["taken"]})
    assert not Path("taken").exists()
    monkeypatch.setenv("METAGEN_ALLOW", "mine_too.mkdir")
    instantiate({"_target_": "mine_too.mkdir", "_args_": ["taken"]})
    assert Path("taken").exists()


def test_errors_do_not_steer_the_terminal(tmp_cwd, capsys):
    assert run(["evaluate", "no\x1b[2Jsuch\x9b31m\u202e"]) == 1
    err = capsys.readouterr().err
    assert "no\\x1b[2Jsuch\\x9b31m\\u202e" in err
    assert "\x1b" not in err


def test_warnings_do_not_steer_the_terminal(sent, caplog):  # noqa: F811
    path = sent / ".hydra/overrides.yaml"
    path.write_text(path.read_text() + '- "hydra.a=\\e[2J"\n')
    saved_overrides(path)
    assert "\\x1b[2J" in caplog.text
    assert "\x1b" not in caplog.text


def test_the_log_does_not_steer_the_terminal(tmp_cwd, capsys):
    from metagen.console import PrintableRecord

    record = PrintableRecord("name", 30, "file", 1, "%s\n", ("\x1b[2J",), None)
    assert record.getMessage() == "\\x1b[2J\n"


def test_a_class_that_unpickles_is_refused():
    pytest.importorskip("torchvision")
    for name in ("torchvision.datasets.LSUN", "torchvision.datasets.lsun.LSUNClass"):
        with pytest.raises(MetagenError, match="METAGEN_ALLOW"):
            instantiate({"_target_": name, "root": "."}, "data.dataset")


def test_choices_that_were_saved_name_no_file_elsewhere(tmp_path):
    from metagen.config.tree import conf_dir
    from metagen.config.tuned import tuned

    (tmp_path / "bomb.yaml").write_text("seed: 1\n")
    way = os.path.relpath(tmp_path / "bomb", conf_dir() / "experiment")
    choices = {"experiment@_global_": way, "experiment": "x"}
    assert tuned(choices, {"seed": 1}, []) == {}


def test_a_cache_in_a_strangers_folder_does_not_hang(tmp_path, quick):
    from metagen.data import cache
    from metagen.data.digits import Digits

    bank = Digits(cache=str(tmp_path)).load()
    (pointer,) = (tmp_path / "banks").glob("*.json")
    (file,) = (tmp_path / "banks").glob("*.bank")
    for path in (pointer, file):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        assert Digits(cache=str(tmp_path)).load().sha256 == bank.sha256
        assert cache.pointed(pointer)["bank"] == file.name
        assert path.read_bytes() == content or path == pointer


@pytest.mark.parametrize(
    ("old", "new"), [("size: 28", "size: {}"), ("size: 28", "x: 28"), ("seed: 0", "seed: ../x")]
)
def test_a_configuration_with_odd_values_gets_one_line(old, new, sent, capsys):  # noqa: F811
    path = sent / ".hydra" / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert fails(WAYS[2], capsys, "") in (1, 2)
