"""Where a command runs: names of folders and classes, the user, variables of the environment."""

import os
import pwd

import fuzz_commands
import pytest
from command_line import draw, fails

from metagen.cli.main import main, run
from metagen.cli.threads import WAITING
from metagen.config.overrides import quoted
from metagen.files import is_text

NAMES = (
    'a"b',
    "a'b",
    "$HOME",
    "a\\b",
    "a\nb",
    "\N{GRINNING FACE}",
    "$\\alpha_",
    "a_{b",
    "%s",
    "<b>",
    "-x",
    " ",
)


def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_odd_names_an_unknown_user_and_no_logging(tmp_path, monkeypatch):
    """One run in all of it: a folder of any name, classes of any name, no home, no job logging."""
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "abc")
    folder = tmp_path / "".join(name for name in NAMES if name != "-x")
    folder.mkdir()
    place = f"hydra.run.dir={quoted('-x' + NAMES[0])}"
    fuzz_commands.prepare(folder, "hydra/job_logging=disabled", place)
    for name in NAMES:
        draw(folder / "odd" / name)
    monkeypatch.chdir(folder)
    assert run(["generate", "./-x" + NAMES[0], "--images", "odd", "--out", "new", "--n", "1"]) == 0
    assert {path.name for path in (folder / "new").iterdir() if path.is_dir()} == set(NAMES)
    assert run(["list", "."]) == 0


@pytest.mark.parametrize("home", [None, "/proc/nowhere"])
def test_a_home_that_there_is_not(home, tmp_cwd, monkeypatch, capsys):
    monkeypatch.delenv("METAGEN_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("HOME", home) if home else monkeypatch.delenv("HOME", raising=False)
    if home:
        assert run(["cache"]) == 0
    else:
        assert fails(["cache"], capsys, "set HOME", "METAGEN_CACHE") == 1


@pytest.mark.parametrize("variable", ["SLURM_NTASKS", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_number_of_ranks_that_is_none(variable, tmp_cwd, monkeypatch, capsys):
    monkeypatch.setenv(variable, "abc")
    assert fails(["train"], capsys, f"{variable}=abc") == 2
    assert not list(tmp_cwd.iterdir())


def test_a_trial_of_no_study_makes_no_database(tmp_cwd, monkeypatch, capsys):
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_cwd / "cache"))
    for named in ("0:sqlite:///nope.db", "x", "-1:sqlite:///nope.db"):
        monkeypatch.setenv("METAGEN_TRIAL", named)
        code = fails(["train", *fuzz_commands.SMALL, "hydra.run.dir=run"], capsys, f"METAGEN_TRIAL={named}")
        assert (code, (tmp_cwd / "nope.db").exists(), (tmp_cwd / "run").exists()) == (2, False, False)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-sc", "foo"], ["-sc foo", "install="]),
        (["-sc", "query=bash"], ["-sc query=bash", "COMP_LINE"]),
        (["train", "-sc", "query=bash"], ["-sc query=bash", "COMP_LINE"]),
        (["train", "--experimental-rerun", "nowhere"], ["--experimental-rerun"]),
        (["evaluate", "x", "--experimental-rerun", "nowhere"], ["--experimental-rerun"]),
        (["train", "hydra/job_logging=nope"], ["hydra/job_logging", "disabled"]),
        (["train", "hydra.run.dir='\udcff'"], ["no text in UTF-8"]),
    ],
)
def test_what_hydra_would_trip_over(argv, words, tmp_cwd, monkeypatch, capsys):
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert fails(argv, capsys, *words) == 2
    assert not list(tmp_cwd.iterdir())


def test_names_that_are_no_text():
    assert all(is_text(name) for name in NAMES)
    assert not is_text("\udcff")


def test_threads_of_the_command_sleep_while_they_wait(monkeypatch):
    """Set before torch is imported, and passed on to every process that the command starts."""
    for name in WAITING:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("sys.argv", ["metagen", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


def test_a_window_system_that_there_is_not_is_not_asked_for(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nope")
    monkeypatch.setattr("sys.argv", ["metagen", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert "MPLBACKEND" not in os.environ
