"""What a sweep's folder remembers, and what is run again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from metagen.cli.main import run
from metagen.errors import MetagenError, UsageError
from metagen.sweeps import process
from metagen.sweeps.plan import Job, JobRecord, Sweep
from metagen.sweeps.process import command, quoted, state_of
from metagen.sweeps.resume import resumed

ODD = [
    "data.root='a, b'",
    "task.test_classes=[1,2]",
    "checkpoint='it\\'s=\"x\" ${y}.ckpt'",
    "judge.cache='(a b)'",
]


@pytest.fixture
def sweep(tmp_path):
    jobs = [Job(0, "0", ["seed=0", *ODD]), Job(1, "a b,c='d'", ["seed=1"])]
    plan = Sweep(
        tmp_path, "train", ["seed=0,1"],
        ["hydra.sweep.dir=x", "hydra.mode=MULTIRUN", "hydra.launcher.jobs=2", "hydra.verbose=true"],
        ["--config-dir", "/mine"], str(tmp_path), jobs,
    )  # fmt: skip
    plan.save()
    return plan


def parsed(words):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return {one.key_or_group: one.value() for one in OverridesParser.create().parse_overrides(words)}


def test_a_plan_is_read_as_it_was_written(sweep):
    assert Sweep.load(sweep.root) == sweep


def test_the_command_of_a_job_keeps_odd_overrides(sweep):
    words = command(sweep, sweep.jobs[0])
    assert words[1:7] == ["-P", "-m", "metagen.cli.job", "train", "--config-dir", "/mine"]
    assert words[-1] == "--force", "the folder is the sweep's own"
    found = parsed(words[7:-1])
    assert found["hydra.run.dir"] == str(sweep.root / "0")
    assert {key: value for key, value in found.items() if "hydra" not in key} == parsed(["seed=0", *ODD])
    assert "hydra.verbose" in found
    assert not {"hydra.mode", "hydra.sweep.dir", "hydra.launcher.jobs"} & set(found)
    assert parsed(command(sweep, sweep.jobs[1])[7:-1])["hydra.run.dir"] == str(sweep.root / "a b,c='d'")


@pytest.mark.parametrize("text", ["a", "a b", "it's", "a\\", "a\\'b", "[x,y]", "a=b", '"q"', ""])
def test_any_text_is_a_value(text):
    assert parsed([f"key={quoted(text)}"])["key"] == text


def test_a_job_that_was_started_goes_on(sweep):
    job = sweep.jobs[0]
    (sweep.root / "0" / ".hydra").mkdir(parents=True)
    (sweep.root / "0" / ".hydra" / "overrides.yaml").write_text("[]")
    assert "--resume" not in command(sweep, job), "what lies there is not of this sweep"
    sweep.write_record(job, JobRecord("failed"))
    assert command(sweep, job)[4:] == ["train", "--resume", str(sweep.root / "0")]
    (sweep.root / "0" / ".hydra" / "overrides.yaml").unlink()
    assert "--resume" not in command(sweep, job), "its folder went away"


@pytest.mark.parametrize(
    ("code", "state"),
    [(1, "failed"), (2, "failed"), (-9, "killed (SIGKILL)"), (-11, "killed (SIGSEGV)"), (130, "interrupted"),
     (143, "interrupted")],
)  # fmt: skip
def test_an_exit_code_tells_the_state(code, state):
    assert state_of(code) == state


def test_the_command_line_that_finishes_a_sweep(sweep):
    task, words = resumed(sweep.root, ["hydra.launcher.jobs=1"])
    assert (task.name, task.run) == ("train", None)
    assert words[:3] == ["-m", "--config-dir", "/mine"]
    found = parsed(words[3:])
    assert found["hydra.launcher.jobs"] == 1
    assert found["hydra.sweep.dir"] == str(sweep.root)
    assert found["hydra/sweeper"] == "resume"


def test_what_cannot_be_resumed(sweep):
    with pytest.raises(UsageError, match="usage: metagen train -m --resume DIR"):
        resumed(sweep.root, ["seed=3"])


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"jobs": [{}]}'])
def test_a_folder_that_is_no_sweep(text, tmp_path):
    if text is not None:
        (tmp_path / "jobs.json").write_text(text)
    with pytest.raises(MetagenError, match=r"jobs\.json"):
        Sweep.load(tmp_path)


SCRIPT = """
import json, os, sys
folder, number = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
tries = len(os.listdir(folder))
open(f"{folder}/try{tries}", "w").close()
if number == "1" and tries == 0:
    sys.exit("no luck")
json.dump({"metrics": {name: {"mean": float(number), "ci95": 0.1} for name in ("diversity", "recognised")}},
          open(f"{folder}/metrics.json", "w"))
"""


@pytest.fixture
def quick_jobs(tmp_cwd, monkeypatch):
    """Jobs that are a script: the second one fails when it runs for the first time."""

    def script(sweep, job):
        return [sys.executable, "-c", SCRIPT, str(sweep.path(job)), str(job.number)]

    monkeypatch.setattr(process, "command", script)
    return tmp_cwd


def test_resume_runs_what_is_not_done_in_the_same_folders(quick_jobs, capsys):
    assert run(["train", "-m", "seed=3,4,5", "hydra.sweep.dir=here", "hydra.launcher.jobs=1"]) == 1
    out = capsys.readouterr().out
    assert "job 1 failed: no luck" in out
    assert "2 done, 1 failed" in out
    assert fails(["train", "-m", "seed=3,4,5", "hydra.sweep.dir=here"], capsys, "holds a sweep", "--resume")
    assert run(["train", "-m", "--resume", "here"]) == 0
    out = capsys.readouterr().out
    assert "here: 1 job, 1 at a time" in out
    assert "here: 3 done" in out
    tries = [len(list(Path("here", str(i)).glob("try*"))) for i in range(3)]
    assert tries == [1, 2, 1], "what was done is kept"
    assert run(["train", "-m", "--resume", "here"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_batches_of_a_sweep_are_one_plan(quick_jobs):
    assert run(["train", "-m", "seed=3,4,5", "hydra.sweep.dir=here", "hydra.sweeper.max_batch_size=2"]) == 1
    assert [job.number for job in Sweep.load(Path("here")).jobs] == [0, 1, 2]


def test_jobs_that_would_share_a_folder_are_refused(quick_jobs, capsys):
    assert fails(
        ["train", "-m", "seed=3,4", "hydra.sweep.dir=here", "hydra.sweep.subdir=x"], capsys, "subdir"
    )
    assert not Path("here", "jobs.json").exists()


@pytest.mark.parametrize("override", ["hydra.launcher.jobs=two", "hydra.launcher.per_device=0", "seed=["])
def test_a_mistake_gets_one_line_before_a_job_starts(override, quick_jobs, capsys):
    argv = ["train", "-m", "seed=3,4", "hydra.sweep.dir=here", "hydra.launcher.devices=[0]", override]
    argv = [word for word in argv if "jobs" not in override or "devices" not in word]
    assert fails(argv, capsys, override.partition("=")[0])
    assert not list(Path().rglob("jobs*"))


def fails(argv, capsys, *words):
    """Run, expect one line on stderr with these words, return whether the exit code tells."""
    capsys.readouterr()
    code = run(argv)
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if line] == [captured.err.strip()]
    assert all(word in captured.err for word in words), captured.err
    return code in (1, 2)


def test_a_job_ends_with_its_sweep(tmp_path):
    """However the sweep ends: here it is killed."""
    job = "import os, time; from metagen.cli.job import end_with_parent; end_with_parent();"
    job += " print(os.getpid(), flush=True); time.sleep(60)"
    parent = (
        "import os, subprocess, sys, time\n"
        f"env = {{**os.environ, 'METAGEN_SWEEP': str(os.getpid())}}\n"
        f"subprocess.Popen([sys.executable, '-c', {job!r}], env=env)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout.readline().strip().isdigit()
        sweep.kill()
        # The pipe ends when the last process that holds it has ended.
        assert sweep.stdout.read() == ""


def test_the_records_are_json(quick_jobs):
    run(["train", "-m", "seed=3,4", "hydra.sweep.dir=here"])
    record = json.loads(Path("here/jobs/1.json").read_text())
    assert record["state"] == "failed"
    assert record["error"] == "no luck"
    assert record["ended"] >= record["started"]
