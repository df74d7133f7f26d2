"""The import rule: packages import downwards only, and no two modules import each other in a circle."""

import ast
from pathlib import Path

import pytest

import metagen

ROOT = Path(metagen.__file__).parent
MODULES = {
    ".".join(["metagen", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

LEAVES = {"errors", "console", "files", "locked", "processes", "ranges", "reading", "statistics", "variables"}
"""Single modules that every package may import."""
MAY_IMPORT = {
    "errors": set(),
    "variables": set(),
    "console": {"errors"},
    "files": {"errors", "processes"},
    "locked": set(),
    "processes": set(),
    "ranges": {"errors"},
    "reading": {"errors"},
    "statistics": set(),
    "functional": set(),
    "core": {"functional"},
    "data": {"core", "functional"},
    "models": {"core", "functional"},
    "learners": {"core", "functional"},
    "metrics": {"core", "functional"},
    "config": set(),
    "report": set(),
    "evaluation": {"core", "data", "functional", "learners"},
    "runs": {"config", "report"},
    "comparison": {"config", "report", "runs"},
    "training": {"config", "core", "evaluation", "functional"},
    "jobs": {"config", "core", "data", "evaluation", "functional", "learners", "report", "runs", "training"},
    "sweeps": {"config", "report", "runs"},
    "demo": {"config", "data", "evaluation", "functional", "jobs", "report"},
    "api": {"comparison", "config", "jobs", "report", "runs", "training"},
    "cli": {"comparison", "config", "demo", "jobs", "runs", "sweeps", "training"},
}
"""Package -> the packages that it may import, imports inside of functions included; none imports ``cli``."""


def package(module):
    return (*module.split("."), "")[1]


def imports(path):
    """Yield the modules of metagen that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                name = name if name in MODULES else str(node.module)
                if name.split(".")[0] == "metagen" and (name, alias.name) != ("metagen", "__version__"):
                    yield name
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "metagen")


GRAPH = {module: set(imports(path)) - {module} for module, path in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_its_package_may(module):
    own = package(module)
    if module == "metagen":
        assert not GRAPH[module], "its public names are imported when they are first used"
        return
    allowed = MAY_IMPORT[own] | {own} | ({*LEAVES} if own not in LEAVES else set())
    for other in GRAPH[module]:
        assert other in MODULES, f"{module} imports {other}, which is no module of metagen"
        assert package(other) in allowed, f"{module} imports {other}: {own} may not import {package(other)}"


def test_every_permission_is_used():
    """A permission that nobody uses hides the structure."""
    for own, allowed in MAY_IMPORT.items():
        used = {package(other) for module in MODULES if package(module) == own for other in GRAPH[module]}
        assert allowed - used - {"metagen"} == set(), own


def test_packages_form_no_circle():
    order, rest = [], dict(MAY_IMPORT)
    while rest:
        free = [own for own, allowed in rest.items() if not (allowed - {own}) & rest.keys()]
        assert free, f"packages in a circle: {sorted(rest)}"
        order += free
        rest = {own: allowed for own, allowed in rest.items() if own not in free}
    assert order[-1] == "cli" or "cli" in order


def test_no_two_modules_import_each_other_in_a_circle():
    state: dict[str, int] = {}

    def visit(module, path):
        if state.get(module) == 1:
            pytest.fail("circle: " + " -> ".join([*path[path.index(module) :], module]))
        if module in state:
            return
        state[module] = 1
        for other in sorted(GRAPH[module]):
            visit(other, [*path, module])
        state[module] = 2

    for module in MODULES:
        visit(module, [])


def test_nobody_imports_the_command_line():
    assert not [
        module
        for module in MODULES
        if package(module) != "cli" and any(package(other) == "cli" for other in GRAPH[module])
    ]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("__init__.py")), ids=str)
def test_init_files_stay_nearly_empty(path):
    if path.parent != ROOT:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 5
