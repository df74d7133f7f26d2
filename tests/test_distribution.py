"""The name that pip installs: one constant, and the same in the package, its messages and the guide."""

import re
import tomllib
from pathlib import Path

import PIL

from metagen.errors import DISTRIBUTION, installing
from metagen.jobs.environment import versions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
TEXTS = [
    path
    for folder in ("src", "conf", "docs", "examples", "benchmarks", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".yaml", ".txt") and "_build" not in path.parts
] + [ROOT / name for name in ("README.md", "README.zh.md", "Makefile")]
ASKED = re.compile(r"pip install [^`\n]*?([\w.-]+|\{DISTRIBUTION\})\\?\[(\w+|\{\w+\}|[^\]\s]+?)\\?\]")
CALLED = re.compile(r"\binstalling\((?:'|\")(\w+)(?:'|\")\)")


def test_pip_installs_the_constant():
    assert PROJECT["name"] == DISTRIBUTION != "metagen"
    assert PROJECT["scripts"] == {"metagen": "metagen.cli.main:main"}
    assert installing("hub") == "pip install 'metagen-images[hub]'"


def test_every_text_names_it_and_an_extra_that_there_is():
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        for name, extra in ASKED.findall(text):
            assert name in (DISTRIBUTION, ".", "{DISTRIBUTION}"), f"{path}: {name}"
            assert extra in EXTRAS or not extra.isalpha(), f"{path}: no extra {extra}"
        assert not re.search(r"pip install ['\"]?metagen(?![\w-])", text), path
        assert set(CALLED.findall(text)) <= EXTRAS, path
        assert path.suffix != ".py" or "src" not in path.parts or 'version("metagen' not in text, path


def test_the_texts_hold_what_is_looked_for():
    found = [extra for path in TEXTS for _, extra in ASKED.findall(path.read_text(encoding="utf-8"))]
    assert {"optuna", "hub", "ray", "slurm", "demo"} <= set(found)
    called = [extra for path in TEXTS for extra in CALLED.findall(path.read_text(encoding="utf-8"))]
    assert {"hub", "demo", "optuna"} <= set(called)


def test_a_record_names_our_version_whatever_is_installed_under_another_name():
    import metagen

    assert versions()["metagen"] == metagen.__version__
    assert versions()["pillow"] == PIL.__version__, "it draws glyphs and scales images"


def test_the_licence_comes_with_the_package():
    assert (PROJECT["license"], PROJECT["license-files"]) == ("MIT", ["LICENSE"])
    assert "Copyright (c) 2026 The metagen authors" in (ROOT / "LICENSE").read_text()
    for name in ("README.md", "README.zh.md"):
        assert "(LICENSE)" in (ROOT / name).read_text()
