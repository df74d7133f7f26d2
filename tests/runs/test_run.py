"""A run's folder: a command that is refused has changed nothing, and one that fails early leaves nothing."""

import json
import os
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
from command_line import fails
from processes import QUICK, trained_run

from metagen.cli.main import run
from metagen.runs.footprint import Footprint

TINY = [*QUICK, "trainer.max_steps=1", "trainer.val_check_interval=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("finished"), TINY)


@pytest.fixture
def here(finished, tmp_cwd):
    shutil.copytree(finished, "run")
    return tmp_cwd


def contents(folder="."):
    """Every file below a folder with its bytes and the moment at which it was written."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def no_network(*args, **kwargs):
    raise URLError("no network")


REFUSED = [
    ["task.ways=0"],
    ["task.ways=100"],
    ["model=conv4"],
    ["learner.stps=1"],
    ["data=mnist", "data.root=nowhere"],
    ["checkpoint=missing.ckpt"],
    ["checkpoint_every=-1"],
    ["judge=protonet", "metric=[recognised]", "task.ways=900"],
]


@pytest.mark.parametrize("mistake", REFUSED, ids=lambda words: " ".join(words))
@pytest.mark.parametrize("place", ["mylogs", "."])
def test_a_refused_command_removes_nothing_of_the_users(place, mistake, tmp_cwd, capsys, monkeypatch):
    """Files that look like a run's own, which were there before."""
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("sys.argv", ["metagen", "train", *mistake])
    Path("mylogs/.hydra").mkdir(parents=True)
    for name in ("mylogs/.hydra/notes.txt", "mylogs/mine.log", "mylogs/metagen.log", "mine.log"):
        Path(name).write_text("mine")
    before = contents()
    assert fails(["train", *TINY, *mistake, f"hydra.run.dir={place}"], capsys) in (1, 2)
    assert contents() == before
    assert not Path("outputs").exists()


@pytest.mark.parametrize("mistake", [["chunk=0"], ["workers=0"], ["trainer.max_time=soon"]], ids=str)
def test_a_start_that_fails_leaves_no_folder(mistake, tmp_cwd, capsys):
    assert fails(["train", *TINY, *mistake], capsys) in (1, 2)
    assert list(tmp_cwd.iterdir()) == []
    Path("mine.log").write_text("mine")
    assert fails(["train", *TINY, *mistake, "hydra.run.dir=."], capsys) in (1, 2)
    assert [path.name for path in tmp_cwd.iterdir()] == ["mine.log"]


def test_ctrl_c_at_the_start_leaves_no_folder(tmp_cwd, capsys, monkeypatch):
    for place in ("metagen.jobs.build.load_data", "metagen.jobs.ddp.together"):
        with monkeypatch.context() as patch:
            patch.setattr(place, lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
            assert run(["train", *TINY]) == 130
            assert list(tmp_cwd.iterdir()) == []


def test_a_full_disk_at_the_start_leaves_no_folder(tmp_cwd, capsys, monkeypatch):
    def full(path, text):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metagen.runs.run.write_text", full)
    assert fails(["train", *TINY], capsys, "disk is full") == 1
    assert list(tmp_cwd.iterdir()) == []


REWRITES = [
    ["train", *TINY, "seed=7", "hydra.run.dir=run"],
    ["train", *TINY, "task.ways=0", "hydra.run.dir=run"],
    ["evaluate", "run", "hydra.run.dir=run"],
    ["evaluate", "run", "seed=7", "hydra.run.dir=run"],
    ["reproduce", "run", "hydra.run.dir=run"],
    ["train", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=run"],
    ["train", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=.", "hydra.sweep.subdir=run"],
    ["evaluate", "run", "-m", "samples=2,3", "hydra.sweep.dir=run"],
    ["train", "--resume", "run", "seed=7"],
    ["train", "--resume", "run", "optimizer.lr=1"],
]


@pytest.mark.parametrize("argv", REWRITES, ids=lambda argv: " ".join(argv)[-60:])
def test_a_finished_run_stays_as_it_is(argv, here, capsys):
    before = contents()
    code = run(argv)
    assert code in (1, 2), capsys.readouterr()
    assert "run" in capsys.readouterr().err
    assert contents() == before


def test_force_replaces_the_run_and_nothing_else(here):
    Path("run/mine.txt").write_text("mine")
    Path("run/checkpoints/samples.png").write_text("old")
    old = json.loads(Path("run/metrics.json").read_text())
    assert run(["train", *TINY, "seed=7", "hydra.run.dir=run", "--force"]) == 0
    new = json.loads(Path("run/metrics.json").read_text())
    assert (old["seed"], new["seed"]) == (0, 7)
    assert Path("run/mine.txt").read_text() == "mine"
    assert not Path("run/checkpoints/samples.png").exists()
    before = contents()
    assert run(["train", *TINY, "task.ways=0", "hydra.run.dir=run", "--force"]) in (1, 2)
    assert contents() == before, "force, too, changes nothing before everything was checked"


def test_a_sweep_is_not_replaced(tmp_cwd, capsys):
    Path("sweep").mkdir()
    Path("sweep/jobs.json").write_text("{}")
    assert fails(["train", *TINY, "hydra.run.dir=sweep", "--force"], capsys, "holds a sweep") == 1
    assert os.listdir("sweep") == ["jobs.json"]


@pytest.mark.parametrize("key", ["hydra.job.chdir=true", "hydra.output_subdir=null"])
def test_what_a_run_does_not_do_is_refused(key, tmp_cwd, capsys):
    assert fails(["train", *TINY, key], capsys, key.partition("=")[0]) == 2
    assert list(tmp_cwd.iterdir()) == []


def test_a_footprint_takes_back_what_is_new_and_known(tmp_path):
    folder = tmp_path / "a" / "b"
    footprint = Footprint(folder, ["*.log", "out"])
    folder.mkdir(parents=True)
    (folder / "x.log").touch()
    (folder / "out").mkdir()
    footprint.undo()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.log").touch()
    footprint = Footprint(tmp_path, ["*.log"])
    (tmp_path / "new.log").touch()
    (tmp_path / "new.txt").touch()
    (tmp_path / "link.log").symlink_to(tmp_path / "old.log")
    footprint.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.txt", "old.log"]
