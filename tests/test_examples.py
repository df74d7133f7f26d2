"""The examples of Python's interface and the guide's page of it run as they stand."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import rest_slow
from processes import inside

import metagen

pytest_plugins = ["data.data_fixtures"]

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
QUICK = [
    "trainer.max_steps=2", "trainer.val_check_interval=1", "trainer.enable_progress_bar=false",
    "task.episodes=2", "task.val_episodes=2", "judge.epochs=1", "judge.min_steps=1", "samples=6",
    "model.channels=8", "model.hidden=32",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, banks):
    """A run of the quickstart, made in two steps."""
    with inside(tmp_path_factory.mktemp("examples"), banks):
        return metagen.train(["experiment=quickstart", *QUICK, "hydra.run.dir=run"]).folder


def runs(name, *words):
    """Run a script as ``python examples/NAME WORDS``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


SCRIPTS = {
    "adapt_and_draw.py": r"\(10, 16, 1, 28, 28\), -?\d+\.\d nats",
    "draw_symbols.py": r"19 symbols, 2 images of each, in my_symbols",
    "own_loop.py": r"nearest mean of the pixels: \d+\.\d %",
    "own_model.py": r"step 60: val/loss \d+\.\d",
}


@pytest.mark.parametrize("name", rest_slow(SCRIPTS, ["draw_symbols.py", "own_loop.py", "own_model.py"]))
def test_a_script_runs(name, made, tmp_cwd, capsys):
    words = {"adapt_and_draw.py": [str(made)], "draw_symbols.py": ["my_symbols", "2"]}
    runs(name, *words.get(name, []))
    assert re.search(SCRIPTS[name], capsys.readouterr().out)


def test_every_example_is_run_and_named_in_the_guide():
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    page = (ROOT / "docs/howto/python.md").read_text()
    assert found - {"quickstart.ipynb", "learned_optimizer.py"} == set(SCRIPTS)
    assert all(f"`{name}`" in page for name in found)


def short(code):
    """The same code with the quickstart cut short."""
    return code.replace(
        '"experiment=quickstart"', ", ".join(f'"{w}"' for w in ["experiment=quickstart", *QUICK])
    )


@pytest.mark.slow
def test_the_notebook_runs(tmp_cwd, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    space = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(short("".join(cell["source"])), space)
    assert tuple(space["drawn"].shape) == (10, 10, 1, 28, 28)
    assert len(list(Path("outputs").rglob("metrics.json"))) == 2


def test_the_page_runs(tmp_cwd):
    page = (ROOT / "docs/howto/python.md").read_text()
    first = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    space = {}
    exec(short(first), space)
    assert tuple(space["new"].shape) == (10, 16, 1, 28, 28)
    assert space["result"].metrics[0]["metric"] == "coverage_relative"


def test_doctests():
    import doctest

    import metagen.api
    import metagen.report.rows

    for module in (metagen.api, metagen.report.rows):
        found = doctest.testmod(module)
        assert found.attempted > 0, module
        assert found.failed == 0, module
