"""Rows of a table that a terminal, a notebook and pandas can show."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from metagen.report.tables import comparison_table


class Rows(list[dict[str, Any]]):
    """A list of rows, column to plain value: ``pandas.DataFrame(rows)`` takes it as it is.

    >>> rows = Rows([{"metric": "accuracy", "mean": 98.6, "ci95": 0.2}])
    >>> print(rows)
    metric    mean  ci95
    ────────  ────  ────
    accuracy  98.6  0.2
    """

    def __str__(self) -> str:
        """Return the table as the terminal shows it."""
        return comparison_table([{name: _cell(value) for name, value in row.items()} for row in self])[0]

    def _repr_html_(self) -> str:
        """Return the table as a notebook shows it."""
        columns = list(dict.fromkeys(name for row in self for name in row))
        head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in columns) + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    @classmethod
    def flat(cls, rows: Sequence[Mapping[str, Any]]) -> "Rows":
        """Return rows whose summaries ``{"mean", "ci95", "n"}`` are columns of their own.

        >>> Rows.flat([{"learner": "maml", "accuracy": {"mean": 90.0, "ci95": 1.5, "n": 50}}])
        [{'learner': 'maml', 'accuracy': 90.0, 'accuracy_ci95': 1.5}]
        """
        return cls(_flat(row) for row in rows)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            out[name], out[f"{name}_ci95"] = value.get("mean"), value.get("ci95")
        else:
            out[name] = value
    return out


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
