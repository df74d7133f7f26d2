"""How Sphinx builds the guide: `make docs`, strictly."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from tools.generate import generate  # noqa: E402

from metagen import __version__  # noqa: E402

project, author = "metagen", "the authors of metagen"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "tools.mathml"]
html_math_renderer = "mathml"
exclude_patterns = ["_build", "tools"]
html_theme, html_title = "furo", f"metagen {__version__}"
html_copy_source = False
html_static_path, html_css_files = ["static"], ["guide.css"]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "attrs_block"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_mock_imports = [
    extra for extra in ("gradio", "ray", "submitit", "optuna") if importlib.util.find_spec(extra) is None
]
python_use_unqualified_type_names = True
# Links into this package must resolve; the inventories of other projects would need the network, and bases
# and type variables that are private have no page.
nitpick_ignore_regex = [("py:.*", r"(?!metagen\.).*"), ("py:.*", r"metagen\.(.*\.)?(_\w+|[A-Z])")]
suppress_warnings = ["ref.python"]  # a short name, such as x, that several classes have

generate(HERE / "generated")

FIELD = re.compile(r"(\w+(?:, \w+)*): +(.*)")
ITALIC = r"(?<![\w*\\])\*(?=\S)(?:[^*\n]|\n(?!\s*\n))+?(?<=\S)\*(?![\w*])"
AS_IT_IS = re.compile(rf"(``.*?``|:\w+:`[^`]*`|{ITALIC})", re.S)
ORIGINAL: dict[str, list[str]] = {}


def _plain(app: Any, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Give docstrings the marks that they do without: lists of fields, code, stars and bars as they are."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()  # the list of the tuple's docstring says what the field is
    listed = _fields(lines) if kind == "class" else lines
    blocks = re.split(r"(^[ ]*\.\. math::.*\n(?:[ ]*\n|[ ]+.*\n?)*)", "\n".join(listed) + "\n", flags=re.M)
    text = "".join(b if b.lstrip().startswith(".. math::") else _escaped(b) for b in blocks)
    lines[:] = text.split("\n")
    ORIGINAL[name] = list(lines)


def _unparsed(app: Any, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep the sentence beside an attribute whole: napoleon takes what is before a colon for its type."""
    if kind in ("attribute", "data"):
        lines[:] = ORIGINAL[name]


def _fields(lines: list[str]) -> list[str]:
    """Make a list of the lines ``name: text`` that stand below the summary of a tuple's docstring."""
    out: list[str] = lines[:1]
    inside = False
    for line in lines[1:]:
        match = FIELD.fullmatch(line)
        if match and (inside or not out[-1].strip()):
            line, inside = f"- ``{match[1]}``: {match[2]}", True
        elif inside and line.startswith(" "):
            line = "  " + line.strip()
        elif line.strip():
            out += [""] if inside else []
            inside = False
        out.append(line)
    return out


def _escaped(text: str) -> str:
    """Show bars and single stars as themselves, and single backticks as code."""
    text = re.sub(r"(?<![`:\w])`([^`<>\n]+)`(?!`|_)", r"``\1``", text)
    parts = AS_IT_IS.split(text)
    return "".join(
        p if i % 2 else re.sub(r"(?<!\\)\||(?<![\\*])\*(?=\w)", r"\\\g<0>", p) for i, p in enumerate(parts)
    )


def setup(app: Any) -> None:
    """Register the hooks, before and after napoleon's."""
    app.connect("autodoc-process-docstring", _plain, priority=400)
    app.connect("autodoc-process-docstring", _unparsed, priority=600)
