"""One table of several runs: the job behind ``metagen compare``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError
from metagen.report.files import write_text
from metagen.report.table import comparison_table


def compare(folders: Sequence[Path], by: Sequence[str] | None = None, markdown: Path | None = None) -> str:
    """Return a table of the finished runs below ``folders``, one row each.

    Args:
        folders: searched for ``metrics.json``.
        by: override keys that label the rows; by default those whose values differ.
        markdown: also write the table here.

    Raises:
        MetagenError: there is no finished run, or the runs were judged on different episodes.
    """
    runs = [
        json.loads(path.read_text()) for folder in folders for path in sorted(folder.rglob("metrics.json"))
    ]
    if not runs:
        raise MetagenError(f"no finished run below {', '.join(map(str, folders))}: metrics.json is in none")
    if len({run["episodes"]["sha256"] for run in runs}) > 1:
        raise MetagenError(
            "the runs were judged on different episodes: compare those of one task and data set"
        )
    overrides = [_overrides(run) for run in runs]
    keys = list(by) if by else _differing(overrides)
    rows = [
        {**{key: labels.get(key, "") for key in keys}, **run["metrics"]}
        for run, labels in zip(runs, overrides, strict=True)
    ]
    terminal, text = comparison_table(rows)
    if markdown:
        write_text(markdown, text)
    return terminal


def _overrides(run: dict[str, Any]) -> dict[str, str]:
    pairs = (item.lstrip("+~").partition("=") for item in run["overrides"])
    return {key: value for key, _, value in pairs}


def _differing(overrides: Sequence[dict[str, str]]) -> list[str]:
    keys = list(dict.fromkeys(key for labels in overrides for key in labels))
    return [key for key in keys if len({labels.get(key) for labels in overrides}) > 1] or keys[:1]
