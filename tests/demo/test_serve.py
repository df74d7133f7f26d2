"""``metagen demo`` on the command line: one line for every mistake."""

import importlib.util
import socket

import pytest

from metagen.cli.main import run
from metagen.demo import listen

pytest_plugins = ["demo.demo_fixtures"]


def fails(argv, capsys, says):
    code = run(argv)
    err = capsys.readouterr().err
    assert err.startswith("metagen: error: ")
    assert err.count("\n") == 1
    assert says in err
    return code


def test_without_the_extra_one_line_says_how_to_get_it(run_folders, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "gradio" else find(name, *a)
    )
    assert fails(["demo", str(run_folders["amortized"])], capsys, "pip install 'metagen-images[demo]'") == 1


def test_a_page_needs_a_run(capsys):
    assert fails(["demo"], capsys, "RUN") == 2


@pytest.mark.parametrize("argv", [["--port", "x"], ["--port", "70000"], ["--hots", "a"]])
def test_bad_options(run_folders, capsys, argv):
    assert fails(["demo", str(run_folders["amortized"]), *argv], capsys, argv[0].lstrip("-")[:4]) == 2


@pytest.mark.parametrize(("name", "says"), [("classifier", "no generator's run"), ("nowhere", "no folder")])
def test_runs_that_cannot_be_shown(run_folders, capsys, monkeypatch, name, says):
    monkeypatch.setattr("metagen.demo.serve.check_installed", lambda: None)
    folder = run_folders.get(name, run_folders["amortized"].parent / "nowhere")
    assert fails(["demo", str(folder)], capsys, says) == 1


def test_a_taken_port_is_said_before_anything_is_loaded(run_folders, capsys, monkeypatch):
    monkeypatch.setattr("metagen.demo.serve.check_installed", lambda: None)
    monkeypatch.setattr("metagen.demo.engine.Engine", None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert fails(["demo", str(run_folders["amortized"]), "--port", port], capsys, f"port {port}") == 1


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours(run_folders, capsys, monkeypatch, host):
    monkeypatch.setattr("metagen.demo.serve.check_installed", lambda: None)
    assert (
        fails(["demo", str(run_folders["amortized"]), "--host", host], capsys, f"cannot listen at {host}")
        == 1
    )


def test_the_first_free_port_is_found(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(listen, "FIRST_PORT", taken.getsockname()[1])
        assert listen.free_port("127.0.0.1", None) > taken.getsockname()[1]


def test_help_says_where_it_listens(capsys):
    with pytest.raises(SystemExit) as left:
        run(["demo", "--help"])
    assert left.value.code == 0
    assert "this machine only" in capsys.readouterr().out
