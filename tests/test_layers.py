"""The import rule: L3 -> L2 -> L1 -> L0, and the folders of L1 never import each other."""

import ast
from pathlib import Path

import pytest

import metagen

ROOT = Path(metagen.__file__).parent
L0 = {
    "episode",
    "objective",
    "errors",
    "rng",
    "vectorize",
    "recompute",
    "ops",
    "chunks",
    "flops",
    "precision",
}
L1 = {"data", "models", "learners", "metrics"}
L2 = {"experiment", "evaluation", "likelihood", "judge", "judge_protonet", "report"}


def layer(part):
    return 0 if part in L0 else 1 if part in L1 else 2 if part in L2 else 3


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            names = [
                f"{node.module}.{a.name}" if node.module == "metagen" else node.module for a in node.names
            ]
        yield from (name.split(".")[1] for name in names if name.startswith("metagen."))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for other in imports(path):
        if other == "__version__":
            continue
        assert layer(other) <= layer(own), f"{own} imports {other}"
        if layer(own) == layer(other) == 1:
            assert own == other, f"{own} imports {other}, its neighbour in L1"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("__init__.py")), ids=str)
def test_init_files_stay_nearly_empty(path):
    assert len(path.read_text().splitlines()) <= 5
