"""One table of several runs: the job behind ``metagen compare``."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError
from metagen.report.files import write_text
from metagen.report.table import comparison_table

Record = dict[str, Any]


def compare(folders: Sequence[Path], by: Sequence[str] | None = None, markdown: Path | None = None) -> str:
    """Return a table of the finished runs below ``folders``, one row each.

    Args:
        folders: searched for ``metrics.json``.
        by: override keys that label the rows; by default those whose values differ.
        markdown: also write the table here.

    Raises:
        MetagenError: there is no finished run, or the runs were judged on different episodes.
    """
    runs = list(finished(folders).values())
    check_episodes(runs)
    overrides = [overrides_of(run) for run in runs]
    keys = list(by) if by else differing(overrides) or list(overrides[0])[:1]
    rows = [
        {**{key: labels.get(key, "") for key in keys}, **run["metrics"]}
        for run, labels in zip(runs, overrides, strict=True)
    ]
    terminal, text = comparison_table(rows)
    if markdown:
        write_text(markdown, text)
    return terminal


def finished(folders: Sequence[Path]) -> dict[Path, Record]:
    """Return the record of every finished run below ``folders`` by its folder.

    Raises:
        MetagenError: there is none.
    """
    paths = [path for folder in folders for path in sorted(folder.rglob("metrics.json"))]
    if not paths:
        raise MetagenError(f"no finished run below {', '.join(map(str, folders))}: metrics.json is in none")
    return {path.parent: json.loads(path.read_text()) for path in paths}


def check_episodes(runs: Iterable[Record]) -> None:
    """Raise a MetagenError where runs were judged on different episodes."""
    if len({run["episodes"]["sha256"] for run in runs}) > 1:
        raise MetagenError(
            "the runs were judged on different episodes: compare those of one task and data set"
        )


def overrides_of(run: Record) -> dict[str, str]:
    """Return the overrides of a run by key."""
    pairs = (item.lstrip("+~").partition("=") for item in run["overrides"])
    return {key: value for key, _, value in pairs}


def differing(overrides: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all runs, in the order of their appearance."""
    keys = list(dict.fromkeys(key for labels in overrides for key in labels))
    return [key for key in keys if len({labels.get(key) for labels in overrides}) > 1]
