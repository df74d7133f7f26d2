import io
import math

import pytest

from metagen.console import echo
from metagen.report.tables import Said, comparison_table, metrics_table, number


@pytest.mark.parametrize(
    ("mean", "ci95", "text"),
    [
        (85.3217, 1.2417, "85.3 ± 1.2"),
        (0.98765, 0.0123, "0.988 ± 0.012"),
        (1234.5, 210.0, "1234 ± 210"),
        (99.5, None, "99.50"),
        (100.0, 0.0, "100.0 ± 0.0"),
        (0.0, None, "0"),
        (-3.14159, None, "-3.142"),
        (math.nan, None, "undefined"),
        (None, None, "undefined"),
    ],
)
def test_numbers_show_what_is_known(mean: float, ci95: float, text: str) -> None:
    assert number(mean, ci95) == text


def test_metrics_table_is_aligned() -> None:
    text = metrics_table(
        {"recognised": {"mean": 50.0, "ci95": 1.0, "n": 100}, "a": {"mean": 1.0, "ci95": None, "n": 1}},
        {"recognised": Said("%", "higher", 99.25), "a": Said()},
    )
    assert text.splitlines() == [
        "metric      mean ± 95 %  unit  better  real images  episodes",
        "──────────  ───────────  ────  ──────  ───────────  ────────",
        "recognised   50.0 ± 1.0  %     higher        99.25       100",
        "a                 1.000                          -         1",
    ]


def test_comparison_is_the_same_on_screen_and_in_markdown() -> None:
    rows = [
        {"learner": "scratch", "recognised": {"mean": 50.0, "ci95": 1.0, "n": 3}},
        {"learner": "a|b", "steps": 5},
    ]
    screen, markdown = comparison_table(rows)
    assert markdown.splitlines() == [
        "| learner | recognised | steps |",
        "|:---|---:|---:|",
        "| scratch | 50.0 ± 1.0 | - |",
        "| a\\|b | - | 5 |",
    ]
    assert screen.splitlines()[2].split() == ["scratch", "50.0", "±", "1.0", "-"]


def test_an_empty_comparison_is_empty() -> None:
    assert comparison_table([])[0].strip() == ""


def test_a_terminal_that_has_only_ascii_shows_every_table(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, "ascii"))
    found = {"mean": 97.5, "ci95": 0.25, "n": 30}
    echo(metrics_table({"recognised": found}, {"recognised": Said("%")}))
    echo(comparison_table([{"run": "李明", "recognised": found}])[0])
    text = shown.getvalue().decode("ascii")
    assert "97.50 +- 0.25" in text
    assert "----" in text
    assert "\\u674e\\u660e" in text
