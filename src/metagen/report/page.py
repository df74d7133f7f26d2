"""One page that holds a whole comparison: nothing in it is loaded from anywhere else."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metagen.report.tables import cell


class Section(Protocol):
    """A table: title, caption and rows (column to cell)."""

    title: str
    caption: str
    rows: list[dict[str, Any]]


class Picture(NamedTuple):
    """A picture with its title, its caption and its address (``data:...``)."""

    title: str
    caption: str
    address: str


class Card(NamedTuple):
    """A run: its group, folder and name (seed, fold), its metrics, its overrides, its samples if any."""

    group: str
    folder: str
    name: str
    metrics: Mapping[str, Mapping[str, Any]]
    overrides: Sequence[str]
    address: str | None


class _Shown(NamedTuple):
    """A cell: its text, the number by which it is sorted (its text, where that is empty), its alignment."""

    text: str
    order: str
    right: bool = False


def page(
    title: str,
    tables: Sequence[Any],
    pictures: Sequence[Picture],
    cards: Sequence[Card],
    notes: Sequence[str],
) -> str:
    """Return the HTML of a comparison; every text in it is escaped.

    Args:
        title: of the page.
        tables: :class:`Section` each; a click on a header sorts by it.
        pictures: of all runs.
        cards: of one run each.
        notes: what was left out and why.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell
    groups: dict[str, list[Card]] = {}
    for card in cards:
        groups.setdefault(card.group, []).append(card)
    return environment.get_template("page.html.j2").render(
        title=title,
        tables=[(table.title, table.caption, *_grid(table.rows)) for table in tables],
        pictures=pictures,
        groups=groups,
        count=len(cards),
        notes=notes,
    )


def _grid(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[_Shown]]]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_shown(row.get(name)) for name in columns] for row in rows]
    right = [any(line[i].order for line in cells) for i in range(len(columns))]
    shown = [[one._replace(right=at) for one, at in zip(line, right, strict=True)] for line in cells]
    return [name.replace("_", " ") for name in columns], shown


def _shown(value: Any) -> _Shown:
    number = value.get("mean") if isinstance(value, Mapping) else value
    if isinstance(number, str):
        try:
            number = float(number.removeprefix("< "))
        except ValueError:
            number = None
    known = isinstance(number, int | float) and math.isfinite(number)
    return _Shown(cell(value), repr(number) if known else "")
