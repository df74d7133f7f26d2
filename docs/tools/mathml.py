"""Formulas as MathML, written when the guide is built: every browser draws it, without a script or a network."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

KNOWN_AS = {r"\arg": r"\operatorname{arg}", r"\_": "_"}
"""What the converter does not know, and what it takes for that."""


def mathml(tex: str, node: Any, display: str = "inline") -> str:
    """Return ``tex`` as MathML; a command that nobody knows is a warning, with which a strict build fails."""
    for unknown, known in KNOWN_AS.items():
        tex = tex.replace(unknown, known)
    written = str(convert(tex, display=display))
    if left := re.search(r"\\[a-zA-Z_]+", re.sub(r"<annotation.*?</annotation>", "", written)):
        logging.getLogger(__name__).warning("%s in a formula is unknown: %s", left[0], tex, location=node)
    return written


def inline(writer: Any, node: Any) -> None:
    """Write a formula within a line."""
    writer.body.append(mathml(node.astext(), node))
    raise nodes.SkipNode


def block(writer: Any, node: Any) -> None:
    """Write a formula of its own, of several lines where it has a double backslash."""
    tex = node.astext().strip()
    if "\\\\" in tex and "\\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    writer.body.append(f'<div class="math">{mathml(tex, node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Register the renderer ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
