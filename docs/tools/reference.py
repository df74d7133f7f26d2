"""The pages of the reference: one for each folder of the package, found by globbing."""

from pathlib import Path

import metagen

PACKAGE = Path(metagen.__file__).parent


def pages(package: Path = PACKAGE) -> dict[str, str]:
    """Return the pages by file name without ``.md``; each shows the docstrings of its modules."""
    folders = sorted({path.parent for path in package.rglob("*.py") if path.name != "__init__.py"})
    found = {}
    for folder in folders:
        name = ".".join(folder.relative_to(package.parent).parts)
        title = "metagen" if folder == package else ".".join(folder.relative_to(package).parts)
        modules = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("__"))
        found[title] = "\n".join([f"# {name}", "", *(_module(f"{name}.{module}") for module in modules)])
    return found


def _module(name: str) -> str:
    directive = f".. automodule:: {name}\n   :members:\n   :show-inheritance:"
    return f"## {name.rpartition('.')[2]}\n\n```{{eval-rst}}\n{directive}\n```\n"
