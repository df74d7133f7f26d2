"""The documented way: what README and how-to pages show is pasted, and the tests find and take it."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import choices
from guide_texts import GUIDE, READMES, ROOT, examples

SHOWN = [
    READMES[0],
    *(GUIDE / "howto" / f"{name}.md" for name in ("learner", "generator", "dataset", "metric")),
]
NEW = {"learner": "sign_descent", "model": "pixel_means", "data": "stripes", "metric": "ink"}
FOUND = (
    "tests/functional/test_pretended_gpu.py::test_a_step_stays_on_the_gpu_and_waits_for_nothing[sign_descent]",
    "tests/functional/test_pretended_gpu.py::test_every_model_does_and_draws_there[pixel_means]",
    "tests/data/test_datasets.py::test_every_config_makes_its_data_set[stripes]",
    *(
        f"tests/test_imports.py::test_a_module_imports_what_its_package_may[metagen.{module}]"
        for module in ("learners.sign_descent", "models.pixel_means", "data.stripes", "metrics.ink")
    ),
)
"""Some of the cases that exist where the files have been pasted: the tests find them by themselves."""
WHOLE = (
    "tests/config/test_tree.py::test_no_file_only_points_at_another",
    "tests/config/test_tree.py::test_no_file_equals_another",
    "tests/test_experiments.py::test_every_argument_stands_in_the_yaml[data]",
    "tests/test_experiments.py::test_every_argument_stands_in_the_yaml[model]",
    "tests/test_experiments.py::test_every_argument_stands_in_the_yaml[metric]",
    "tests/test_docs.py::test_the_table_of_methods_names_what_is_there",
    "tests/test_docs.py::test_reference_has_every_module",
)
"""Tests that look at every file of ``conf``, at the whole source, or at the guide that is made of both."""


@pytest.mark.slow
def test_what_is_pasted_from_the_pages_passes_the_tests(tmp_path):
    for part in ("src", "conf", "tests", "docs", "benchmarks"):
        unread = shutil.ignore_patterns("__pycache__", "_build", "generated")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=unread)
    for file in ("README.md", "README.zh.md", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    pasted = {name: text for page in SHOWN for name, text in examples(page).items()}
    assert len(pasted) == 8
    for name, text in pasted.items():
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(text)
    own = {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    at = {sorted([*choices(g), name]).index(name) for g, name in NEW.items() if g != "metric"}
    explained = (f"tests/config/test_schema.py::test_every_key_is_explained[{index}]" for index in at)
    wanted = [*FOUND, *WHOLE, *explained]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *wanted],
        cwd=tmp_path, env={**kept, **own}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) == len(wanted)
