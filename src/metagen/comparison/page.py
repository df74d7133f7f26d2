"""Write a comparison into a folder: tables, pictures and one page that holds all of it."""

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metagen.comparison.comparison import Comparison, Options
from metagen.comparison.groups import Group
from metagen.comparison.in_words import markdown_of
from metagen.comparison.paired_differences import Measure, difference, score
from metagen.comparison.payoff import path
from metagen.errors import MetagenError
from metagen.files import write_text
from metagen.reading import read_bytes
from metagen.report.adaptation_plot import adaptation_curves
from metagen.report.differences_plot import differences_plot
from metagen.report.page import Card, Picture, page
from metagen.runs.records import FinishedRun, left_lines

DRAWN = 12  # lines in a picture
PNG = b"\x89PNG\r\n\x1a\n"
ROOM = 64 * 2**20  # bytes of pictures in a page


def write(found: Comparison, options: Options, out: Path) -> None:
    """Write everything.

    Raises:
        MetagenError: a file cannot be written.
    """
    tables = {table.title: table for table in found.tables}
    write_text(out / "comparison.csv", csv_of(tables["Scores"].rows))
    if "Paired differences" in tables:
        write_text(out / "differences.csv", csv_of(tables["Paired differences"].rows))
    runs = [(group, run) for group in found.groups for run in group.runs()]
    write_text(out / "runs.csv", csv_of([_run_row(group, run, found.measures) for group, run in runs]))
    write_text(out / "comparison.md", markdown_of(found))
    pictures = _pictures(found, options, out)
    cards, omitted = _cards(runs, found.measures, options.within)
    notes = [*left_lines(found.left, len(found.left)), *found.notes, *omitted]
    write_text(out / "comparison.html", page("Comparison of runs", found.tables, pictures, cards, notes))


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; a summary becomes two columns, NAME and NAME_ci95."""
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""How a text begins that a spreadsheet runs."""


def inert(value: Any) -> Any:
    """Return a cell of a CSV file; a text that a spreadsheet would run as a formula is marked as a text."""
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    return {inert(key): inert(value) for key, value in _columns(row).items()}


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            out |= {key: value["mean"], f"{key}_ci95": value["ci95"]}
            out |= {f"{key}_over": value["over"]} if "over" in value else {}
        else:
            out[key] = value
    return out


def _run_row(group: Group, run: FinishedRun, measures: Sequence[Measure]) -> dict[str, Any]:
    means = {m.name: run.record["metrics"].get(m.name) for m in measures}
    training = run.record["training"]
    return {"folder": str(run.folder), "group": group.name, "seed": run.record["seed"], **means} | {
        "training steps": training.get("steps"),
        "training seconds": training.get("seconds"),
        "device": run.record.get("device"),
        "overrides": " ".join(run.record["overrides"]),
    }


def _pictures(found: Comparison, options: Options, out: Path) -> list[Picture]:
    groups = _drawn(found)
    few = f"; {len(groups)} of {len(found.groups)} rows are drawn" if len(groups) < len(found.groups) else ""
    names = [m.name for m in found.measures if not m.name.startswith("nll_t")]
    shown = {m.name: (m.unit, m.better) for m in found.measures if m.name in names}
    adaptation_curves({g.name: _line(g, names) for g in groups}, shown, out / "adaptation.png")
    pictures = [
        _picture(
            "Adaptation",
            "Every metric over steps, seconds and FLOPs of adaptation an episode (drawing samples not "
            "included), with 95 % intervals as in the scores; a learner without steps keeps its value at "
            f"every budget{few}.",
            out / "adaptation.png",
        )
    ]
    pairs = [(a, b) for a, b in found.pairs if any(a is g for g in groups)]
    panels = {
        m: [(a.name, b.name, difference(a, b, m, options.budget)) for a, b in pairs] for m in found.measures
    }
    known = {
        (m.name, m.unit, m.better): [
            (a, b, d.episodes.mean, d.episodes.ci95) for a, b, d in rows if d is not None
        ]
        for m, rows in panels.items()
    }
    if any(known.values()):
        differences_plot({key: rows for key, rows in known.items() if rows}, out / "differences.png")
        pictures.append(
            _picture(
                "Paired differences",
                f"Row minus baseline, 95 % intervals over episodes, not corrected; 0 is no difference{few}.",
                out / "differences.png",
            )
        )
    return pictures


def _drawn(found: Comparison) -> list[Group]:
    """Return the groups that a picture has room for: the baselines and the best of the others."""
    controls = list({id(b): b for _, b in found.pairs}.values())
    main = found.measures[0]

    def rank(group: Group) -> float:
        mean = (score(group, main) or {}).get("mean")
        return -main.sign * mean if mean is not None and mean == mean else float("inf")

    others = sorted((g for g in found.groups if not any(g is c for c in controls)), key=rank)
    kept = {id(g) for g in [*controls, *others][:DRAWN]}
    return [g for g in found.groups if id(g) in kept]


def _line(group: Group, names: Sequence[str]) -> list[tuple[int, float, float | None, dict[str, Any]]]:
    """Return a group's adaptation: step, seconds, FLOPs and scores at every measured number of steps."""
    out = []
    for point in path(group, names):
        found = {name: score(group, Measure(name, "", None), point.step) for name in names}
        kept = {name: one or {"mean": point.means.get(name), "ci95": None} for name, one in found.items()}
        out.append((point.step, point.seconds, point.flops, kept))
    return out


def _picture(title: str, caption: str, file: Path) -> Picture:
    return Picture(title, caption, encoded(file))


def encoded(file: Path) -> str:
    """Return a PNG file as an address that holds it."""
    return _address(file.read_bytes())


def _address(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def samples_of(folder: Path) -> bytes | None:
    """Return the picture of a run's samples; None where there is none or it lies outside of its folder.

    A link to somebody's own file would put that into a page that is passed on.
    """
    path = folder / "samples.png"
    if path.is_symlink():
        return None
    try:
        content = read_bytes(path)
    except (OSError, MetagenError):
        return None
    return content if content.startswith(PNG) else None


def _cards(
    runs: Sequence[tuple[Group, FinishedRun]], measures: Sequence[Measure], within: Sequence[str]
) -> tuple[list[Card], list[str]]:
    """Return a card for each run, with its samples as long as there is room."""
    cards, used, without = [], 0, 0
    for group, run in runs:
        content, image = samples_of(run.folder), None
        if content is not None:
            used += len(content) * 4 // 3
            image = _address(content) if used < ROOM else None
            without += image is None
        metrics = {m.name: run.record["metrics"].get(m.name) for m in measures}
        known = {name: one for name, one in metrics.items() if one}
        overrides = [str(item) for item in run.record["overrides"]]
        fold = [f"{key}={run.settings.get(key, 'default')}" for key in within]
        name = ", ".join([*fold, f"seed {run.record['seed']}"])
        cards.append(Card(group.name, str(run.folder), name, known, overrides, image))
    note = f"the samples of {without} runs are not shown: the page has room for {ROOM >> 20} MiB of pictures"
    return cards, [note] if without else []
