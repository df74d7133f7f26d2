"""The command line: what a run leaves behind, and one line for every mistake."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import draw, fails
from PIL import Image
from processes import trained_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from metagen.cli.main import run
from metagen.errors import UsageError
from metagen.jobs.placed import placed

QUICK = [
    "task.episodes=3",
    "task.val_episodes=2",
    "task.batch=2",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.enable_progress_bar=false",
    "judge.epochs=1",
    "judge.min_steps=1",
    "samples=4",
    "model.channels=8",
    "model.hidden=32",
]


START = "_hparams_/session_start_info"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run; its folder."""
    return trained_run(tmp_path_factory.mktemp("cli"), [*QUICK, "learner=chain"])


@pytest.fixture
def here(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAGEN_CACHE", str(trained.parent / "cache"))
    return tmp_path


def test_run_folder_holds_what_was_done(trained):
    for name in (".hydra/config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "metagen.log",
                 "metrics.json", "samples.png", "samples.npz", "adaptation.png", "episodes.npz"):  # fmt: skip
        assert (trained / name).is_file(), name
    assert list(trained.glob("tensorboard/*/events.out.tfevents.*"))
    record = json.loads((trained / "metrics.json").read_text())
    assert record["split"] == {"train": list("0123456"), "val": [], "test": list("789")}
    assert record["episodes"]["count"] == 3
    assert len(record["episodes"]["sha256"]) == 64
    assert set(record["metrics"]) == {"recognised", "negative_elbo", "diversity", "memorisation"}
    for name, value in record["metrics"].items():
        assert value["n"] == 3
        assert value["mean"] == pytest.approx(np.mean(record["per_episode"][name]))
    assert [point["step"] for point in record["adaptation"]] == [0, 1, 2, 5, 10]
    assert record["training"]["steps"] == 4
    assert "learner=chain" in record["overrides"]
    assert record["choices"]["model"] == "vae"
    assert record["better"]["negative_elbo"] == "lower"
    arrays = np.load(trained / "samples.npz")
    assert arrays["support"].shape == (3, 5, 28, 28)
    assert arrays["samples"].shape == (3, 4, 28, 28)
    assert arrays["samples"].dtype == arrays["support"].dtype == np.uint8
    assert set(arrays["classes"]) == set("789")


def test_checkpoint_loads_without_running_code(trained):
    saved = torch.load(trained / "checkpoints/best.ckpt", weights_only=True)
    assert saved["global_step"] in (2, 4)


def test_training_that_ends_between_validations_keeps_its_last_state(here):
    steps = ["trainer.max_steps=3", "trainer.val_check_interval=2"]
    assert run(["train", *QUICK, *steps, "hydra.run.dir=run"]) == 0
    found = {
        name: torch.load(here / f"run/checkpoints/{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    }
    assert found == {"best": 2, "last": 3}
    assert run(["train", *QUICK, "trainer.max_steps=1", "hydra.run.dir=short"]) == 0, "no validation at all"


def test_the_same_command_gives_the_same_numbers(trained, here):
    assert run(["train", *QUICK, "learner=chain", "hydra.run.dir=again"]) == 0
    records = [json.loads((folder / "metrics.json").read_text()) for folder in (trained, here / "again")]
    for key in ("metrics", "per_episode", "episodes", "split"):
        assert records[0][key] == records[1][key], key
    assert np.array_equal(*(np.load(f / "samples.npz")["samples"] for f in (trained, here / "again")))


def test_evaluate_repeats_the_test_in_a_new_folder(trained, here):
    before = sorted(trained.rglob("*"))
    assert run(["evaluate", str(trained), "hydra.run.dir=evaluated"]) == 0
    records = [json.loads((folder / "metrics.json").read_text()) for folder in (trained, here / "evaluated")]
    assert records[0]["per_episode"] == records[1]["per_episode"]
    assert sorted(trained.rglob("*")) == before
    assert run(["evaluate", str(trained), "task.shots=2", "hydra.run.dir=other"]) == 0
    assert run(["evaluate", str(trained), "learner=amortized", "hydra.run.dir=first"]) == 0
    first = json.loads((here / "first" / "metrics.json").read_text())
    assert [point["step"] for point in first["adaptation"]] == [0], "the chain's first part alone"
    other = json.loads((here / "other" / "metrics.json").read_text())
    assert other["episodes"]["sha256"] != records[0]["episodes"]["sha256"]


def test_a_rate_of_the_test_is_that_of_the_rule(trained, here, capsys):
    for name, text in {"rule": "rule.rate=0.01", "test": "test_rate=0.01"}.items():
        assert run(["evaluate", str(trained), f"learner.{text}", f"hydra.run.dir={name}"]) == 0
    values = [json.loads((f / "metrics.json").read_text())["per_episode"] for f in (trained, here / "rule")]
    assert values[1] == json.loads((here / "test/metrics.json").read_text())["per_episode"] != values[0]
    assert "adapts at learner.test_rate=0.01" in capsys.readouterr().out


def test_generate_from_a_folder_of_pictures(trained, here):
    draw(here / "mine" / "stroke")
    draw(here / "mine" / "other one")
    assert run(["generate", str(trained), "--images", "mine", "--out", "new", "--n", "5"]) == 0
    assert sorted(p.name for p in (here / "new").iterdir()) == [
        "other one", "samples.npz", "samples.png", "stroke",
    ]  # fmt: skip
    arrays = np.load(here / "new" / "samples.npz")
    assert arrays["samples"].shape == (2, 5, 28, 28)
    for row, name in enumerate(arrays["classes"]):
        files = sorted((here / "new" / name).glob("*.png"))
        assert len(files) == 5
        assert np.array_equal(np.asarray(Image.open(files[3])), arrays["samples"][row, 3])


def test_generate_never_overwrites(trained, here, capsys):
    draw(here / "mine" / "a")
    (here / "new").mkdir()
    (here / "new" / "keep.txt").write_text("x")
    assert fails(["generate", str(trained), "--images", "mine", "--out", "new"], capsys, "not empty") == 1
    assert [p.name for p in (here / "new").iterdir()] == ["keep.txt"]


MISTAKES = [
    (["generate", "--images", "mine"], ["required: run (see metagen generate --help)"]),
    (["cache", "--cache", "nowhere"], ["--cache nowhere: there is no folder"]),
    (["train", "experiment=quickstart", "hydra.run.dir="], ["hydra.run.dir= names no folder"]),
    (["train", "-m", "seed=0,1", "hydra.sweep.dir="], ["hydra.sweep.dir= names no folder"]),
    (
        ["train", "-m", "hydra/sweeper=optuna", "learner=maml,reptile", "hydra.sweep.dir="],
        ["hydra.sweep.dir= names no folder"],
    ),
    (
        ["train", "optimizer._target_=torch.optim.RMSprop"],
        ["no argument of torch.optim.RMSprop", "by ~optimizer."],
    ),
    (["train", "trainer.max_steps=0"], ["trainer.max_steps=0: expected a whole number from 1"]),
    (["reproduce", "pretrained/symbols"], ["symbols has no metrics.json to compare with"]),
    (["trian"], ["did you mean 'train'"]),
    (["--verison"], ["did you mean '--version'"]),
    (["train", "--cfg", "jobb"], ["invalid choice: 'jobb'", "'job'", "hydra"]),
    (["train", "seed='1'"], ["seed='1': expected a whole number"]),
    (["train", "experimnt=quickstart"], ["did you mean 'experiment'"]),
    (["train", "data@test_dta=mnist"], ["did you mean 'data@test_data'"]),
    (["compare", ".", "--metrc", "kid"], ["did you mean '--metric'"]),
    (["cache", "--cler"], ["did you mean '--clear'"]),
    (["demo", "run", "--prot=1"], ["did you mean '--port'"]),
    (["generate", "run", "--imgaes", "."], ["did you mean '--images'"]),
    (["train", "learner=mmaml"], ["'mmaml'", "did you mean 'maml'"]),
    (["train", "experiment=quikstart"], ["did you mean 'quickstart'"]),
    (["train", "test_data=mnist"], ["test_data"]),
    (["train", "taks.ways=3"], ["did you mean 'task.ways'"]),
    (["train", "task.wyas=3"], ["did you mean 'task.ways'"]),
    (["train", "learner=maml", "learner.rule.rat=1"], ["did you mean 'learner.rule.rate'"]),
    (["train", "+task.wyas=3"], ["task.wyas", "did you mean 'ways'"]),
    (["train", "+foo=3"], ["no key 'foo'"]),
    (["train", "task.ways=["], ["task.ways"]),
    (["train", "task.ways=abc"], ["task.ways", "whole number"]),
    (["train", "seed=abc"], ["seed", "whole number"]),
    (["train", "vectorize=vamp"], ["vectorize", "vmap"]),
    (["train", "optimizer.lr=fast"], ["optimizer.lr", "number"]),
    (["train", "task.ways=30"], ["task.ways=30", "classes"]),
    (["train", "task.train_count=8"], ["task.train_count=8", "7 training classes"]),
    (["train", "task.train_count=many"], ["task.train_count", "whole number"]),
    (["train", "task.train_count=2", "task.symmetries=false"], ["task.ways=3", "has 2"]),
    (["train", "task.shots=500"], ["500 shots", "lower task.shots"]),
    (["train", "task.test_queries=500"], ["500 queries"]),
    (["train", "task.test_classes=[1,2]", "task.val_classes=[1]"], ["overlap", "'1'"]),
    (["train", "task.test_classes=[77]"], ["'77'"]),
    (["train", "model=conv4"], ["model=vae"]),
    (["train", "learner=supervised"], ["learner=maml"]),
    (["train", "task=classify", "model=conv4", "learner=amortized"], ["model=vae", "learner=maml"]),
    (["train", "task=classify", "model=conv4", "learner=cavia"], ["context", "use "]),
    (["train", "data=mnist", "data.root=nowhere"], ["nowhere", "train-images-idx3-ubyte", "data=digits"]),
    (["train", "checkpoint=missing.ckpt"], ["missing.ckpt"]),
    (["train", "hydra.run.dir=/proc/none"], ["/proc/none"]),
    (["evaluate"], ["folder"]),
    (["evaluate", "nowhere"], ["nowhere"]),
    (["generate", "nowhere", "--images", "mine"], ["nowhere"]),
    (["generate", "run"], ["--images", "--help"]),
    (["generate", "run", "--images", "mine", "--n", "many"], ["--n", "many"]),
    (["generate", "run", "--images", "mine", "--n", "0"], ["from 1"]),
    (["compare"], ["DIR"]),
    (["compare", "nowhere"], ["nowhere"]),
    (["compare", "nowhere", "--x", "seed"], ["nowhere"]),
    (["compare", "nowhere", "--plot", "a.png"], ["--plot", "--x", "--help"]),
    (["compare", "nowhere", "--metric", "accuracy"], ["nowhere"]),
    (["compare", "nowhere", "--x", "seed", "--out", "new"], ["--out", "--x"]),
    (["compare", "nowhere", "--budget", "-1"], ["--budget", "-1", "0 or more"]),
    (["list", "nowhere"], ["nowhere"]),
    (
        ["train", "-m", "seed=0,1", "hydra.launcher.jobs=0"],
        ["hydra.launcher.jobs=0", "a whole number from 1"],
    ),
    (["train", "-m", "seed=0,1", "hydra.launcher.jbos=1"], ["hydra.launcher.jobs"]),
    (["train", "-m", "learner=reptile", "learner.stps=1,2"], ["learner.steps"]),
    (["compare", "nowhere", "--x", "seed", "--by", "learner"], ["--by", "--x"]),
]


def test_generate_leaves_a_whole_folder_or_none(trained, here, capsys, monkeypatch):
    """Ctrl-C or a full disk in the middle of writing; then a folder with files of the user's."""
    for name in ("cat", "dog"):
        draw(here / "mine" / name)
    words = ["generate", str(trained), "--images", "mine", "--out", "new"]
    for error, code in ((KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)):

        def fails(*args, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("metagen.jobs.generate.samples_grid", fails)
            assert run([*words, "--n", "2"]) == code
        assert [path.name for path in here.iterdir()] == ["mine"]
    assert "cannot write new: No space left on device" in capsys.readouterr().err
    assert run([*words, "--n", "3"]) == 0
    (here / "new" / "cat" / "mine.png").write_bytes(b"mine")
    before = (here / "new" / "cat" / "0000.png").read_bytes()
    assert run([*words, "--n", "2", "--seed", "1"]) == 1
    assert "--force" in capsys.readouterr().err
    assert (here / "new" / "cat" / "0000.png").read_bytes() == before
    assert run([*words, "--n", "2", "--seed", "1", "--force"]) == 0
    assert {path.name for path in (here / "new" / "cat").iterdir()} == {"0000.png", "0001.png", "mine.png"}
    assert (here / "new" / "cat" / "0000.png").read_bytes() != before
    for out in ("mine", "mine/new", str(trained)):
        assert run([*words[:-1], out, "--force"]) == 1
        assert "name a new folder" in capsys.readouterr().err
    assert sorted(path.name for path in (here / "mine").iterdir()) == ["cat", "dog"]


@pytest.mark.parametrize(("argv", "words"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_a_mistake_gets_one_line_and_leaves_nothing(argv, words, tmp_cwd, capsys, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    monkeypatch.setattr("sys.argv", ["metagen", *argv])
    assert fails(argv, capsys, *words) in (1, 2)
    assert list(tmp_cwd.iterdir()) == []


def test_no_gpu(tmp_cwd, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["metagen", "train", "trainer=gpu"])
    assert fails(["train", "trainer=gpu"], capsys, "no GPU", "trainer=cpu") == 2
    assert list(tmp_cwd.iterdir()) == []


@pytest.mark.parametrize("command", ["generate", "demo", "evaluate"])
def test_no_gpu_for_a_command(command, trained, here, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("metagen.demo.serve.check_installed", lambda: None)
    draw(here / "mine" / "cat")
    more = {"generate": ["--images", "mine", "--out", "new"]}.get(command, [])
    before = sorted(here.iterdir())
    assert fails([command, str(trained), *more, "--device", "cuda"], capsys, "no GPU", "--device cpu") == 2
    assert sorted(here.iterdir()) == before


def test_an_evaluation_is_put_on_a_gpu_where_there_is_one(trained, monkeypatch):
    assert placed(trained, ["samples=2"]) == ["samples=2"]
    for here, device, wanted in [
        (True, "auto", ["trainer.accelerator=gpu"]),
        (True, "cuda:1", ["trainer.accelerator=gpu", "trainer.devices=[1]"]),
        (True, "cpu", []),
    ]:
        monkeypatch.setattr("torch.cuda.is_available", lambda here=here: here)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        assert placed(trained, ["samples=2"], device) == ["samples=2", *wanted]
    assert placed(trained, ["trainer.accelerator=cpu"]) == ["trainer.accelerator=cpu"]
    with pytest.raises(UsageError, match="both say where"):
        placed(trained, ["trainer=gpu"], "cpu")


def _no_network(*args, **kwargs):
    from urllib.error import URLError

    raise URLError("no network")


def test_a_run_without_a_checkpoint(trained, here, capsys):
    shutil.copytree(trained / ".hydra", here / "run" / ".hydra")
    assert fails(["evaluate", "run"], capsys, "no checkpoint") == 1


def test_a_truncated_checkpoint(trained, here, capsys):
    data = (trained / "checkpoints" / "best.ckpt").read_bytes()
    Path("broken.ckpt").write_bytes(data[: len(data) // 2])
    assert fails(["train", "checkpoint=broken.ckpt"], capsys, "broken.ckpt") == 1
    assert [p.name for p in here.iterdir()] == ["broken.ckpt"]


def test_a_checkpoint_of_another_model(trained, here, capsys):
    checkpoint = trained / "checkpoints" / "best.ckpt"
    assert fails(["train", f"checkpoint={checkpoint}", "model.hidden=8"], capsys, "another model") == 1


def test_scratch_from_a_checkpoint_is_called_fine_tuning(trained, here, capsys):
    checkpoint = trained / "checkpoints" / "best.ckpt"
    assert run(["train", *QUICK, "learner=scratch", f"checkpoint={checkpoint}"]) == 0
    assert "fine-tuning, not training from scratch" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["empty", "unequal", "text", "missing"])
def test_bad_picture_folders(kind, trained, here, capsys):
    images = here / "mine"
    if kind != "missing":
        images.mkdir()
    if kind == "unequal":
        draw(images / "a", k=2)
        draw(images / "b", k=3)
    if kind == "text":
        draw(images / "a")
        (images / "a" / "1.png").write_text("no picture")
    assert fails(["generate", str(trained), "--images", "mine", "--out", "new"], capsys, "mine") in (1, 2)
    assert not (here / "new").exists()


def test_a_full_disk_gets_one_line(trained, here, capsys, monkeypatch):
    """The disk fills up while the second best checkpoint is written: the first one stays."""
    write, written = Path.write_bytes, []

    def full(path, data):
        written.append(path)
        if len(written) < 3:
            return write(path, data)
        write(path, bytes(data)[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert fails(["train", *QUICK, "hydra.run.dir=run"], capsys, "No space left") == 1
    kept = sorted((here / "run" / "checkpoints").iterdir())
    assert [p.name for p in kept] == ["best.ckpt", "last.ckpt"]
    assert all(torch.load(p, weights_only=True)["global_step"] > 0 for p in kept)


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failed_job(here, trained, capsys):
    threads = torch.get_num_threads() + 1
    settings = ["hydra.sweep.dir=sweep", f"hydra.launcher.threads={threads}", "metric=[negative_elbo]"]
    settings += ["trainer.max_steps=1"]
    code = run(["train", "-m", "learner=supervised,amortized", *QUICK, *settings])
    assert code == 1
    assert sorted(p.parent.name for p in (here / "sweep").rglob("metrics.json")) == ["1"]
    record = json.loads((here / "sweep" / "1" / "metrics.json").read_text())
    assert record["machine"]["threads"] == threads, "though the process that it was forked from had one"
    assert not list((here / "sweep").rglob("progress.json")), "nobody works there any more"
    assert run(["compare", "sweep"]) == 0


def test_compare_prints_a_row_for_each_run(trained, here, capsys):
    assert run(["train", *QUICK, "learner=scratch", "hydra.run.dir=scratch"]) == 0
    capsys.readouterr()
    assert run(["compare", str(trained), "scratch", "--markdown", "table.md"]) == 0
    out = capsys.readouterr().out
    assert "chain" in out
    assert "scratch" in out
    assert "|" in (here / "table.md").read_text()


def test_compare_refuses_runs_on_different_episodes(trained, here, capsys):
    assert run(["train", *QUICK, "learner=scratch", "task.shots=1", "hydra.run.dir=one_shot"]) == 0
    assert fails(["compare", str(trained), "one_shot"], capsys, "different episodes") == 1


def test_compare_draws_a_metric_over_an_override(trained, here, capsys):
    counts = ["task.train_count=1,2", "task.ways=1", "seed=0,1", "metric=[negative_elbo,diversity]"]
    counts += ["trainer.max_steps=1"]
    assert run(["train", "-m", *QUICK, *counts, "hydra.sweep.dir=sweep"]) == 0
    capsys.readouterr()
    argv = ["compare", "sweep", "--x", "task.train_count", "--metric", "negative_elbo", "--plot", "plot.png"]
    assert run(argv) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Means and 95 % intervals over 2 seeds (Student's t)"
    assert [line.split()[:2] for line in out[4:6]] == [["1", "2"], ["2", "2"]]
    assert "diversity" not in out[2]
    assert Image.open(here / "plot.png").width > 400
    records = [json.loads(p.read_text()) for p in sorted((here / "sweep").rglob("metrics.json"))]
    assert sorted(len(record["split"]["train"]) for record in records) == [1, 1, 2, 2]


def test_help_is_light():
    import subprocess
    import sys

    code = "import sys; from metagen.cli.main import run; run(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, "metagen --help must not import torch"
    assert "metagen train" in done.stdout
    code = "import sys; from metagen.cli.main import run; run(['train', '--help'])"
    code += "; sys.exit('lightning' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, "nor metagen train --help"
    assert "learner:" in done.stdout


def test_tensorboard_compares_runs_by_what_was_chosen(trained):
    """The HParams tab sorts by these names: a choice under its group's, the values of a recipe, no more."""
    logs = [EventAccumulator(str(path)).Reload() for path in trained.glob("tensorboard/*/events*")]
    (kept,) = (log for log in logs if START in log.summary_metadata)
    content = kept.summary_metadata[START].plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["learner"].string_value == "chain"
    assert values["model"].string_value == "vae"
    assert {"seed", "task.shots", "optimizer.lr"} <= set(values)
    assert not [name for name in values if name.endswith("_target_") or name.startswith(("judge", "hydra"))]
    assert "test/diversity" in kept.Tags()["scalars"]
