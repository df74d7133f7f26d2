"""A comparison in words: for the terminal and in Markdown."""

import textwrap

from metagen.comparison.comparison import Comparison
from metagen.report.tables import comparison_table, markdown
from metagen.runs.records import left_lines

SHOWN = 60  # differences on the terminal


def terminal_of(found: Comparison) -> str:
    """Return the tables as the terminal shows them."""
    parts = []
    for table in found.tables:
        rows = table.rows if table.title == "Scores" else table.rows[:SHOWN]
        more = len(table.rows) - len(rows)
        text = comparison_table(rows)[0] + (
            f"\n… {more} more: --out FOLDER writes all of them" if more else ""
        )
        parts.append(f"{text}\n\n{textwrap.fill(table.caption, 100)}")
    return "\n\n".join([*parts, "\n".join([*left_lines(found.left), *found.notes])]).rstrip()


def markdown_of(found: Comparison) -> str:
    """Return the tables in Markdown."""
    parts = [
        f"## {markdown(t.title)}\n\n{markdown(t.caption)}\n\n{comparison_table(t.rows)[1]}"
        for t in found.tables
    ]
    lines = [f"- {markdown(line)}" for line in [*left_lines(found.left, len(found.left)), *found.notes]]
    return "\n".join([*parts, *(["## Left out and missing\n", *lines, ""] if lines else [])])
