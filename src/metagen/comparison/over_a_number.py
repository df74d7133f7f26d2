"""Metrics over a number that was varied from run to run: the job behind ``metagen compare --x``."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metagen.errors import MetagenError, nearest
from metagen.files import check_new_file, write_text
from metagen.report.tables import comparison_table
from metagen.runs.records import collect, left_lines, short_of
from metagen.runs.settings import Record, differing, overrides_of, settings_of
from metagen.statistics import summarize


class CurvePoint(NamedTuple):
    """The runs that differ in nothing but their seed.

    labels: what tells their line from the others, a value (None: not known) for each key.
    x:      where they stand on it; None for a control, which takes no part in what x varies.
    runs:   their records by folder.
    """

    labels: tuple[str | None, ...]
    x: float | None
    runs: dict[Path, Record]


def curve(
    folders: Sequence[Path],
    x: str,
    metrics: Sequence[str] | None = None,
    plot: Path | None = None,
    markdown: Path | None = None,
    force: bool = False,
) -> str:
    """Return a table of the metrics over the override ``x``, averaged over runs that differ in their seed.

    A point is the mean over its runs with Student's 95 % interval over them; of one run alone, with that
    over its test episodes. What differs beside ``x`` and the seed makes a line of its own. Runs that
    have no value for ``x`` are a control, drawn as a level line.

    Args:
        folders: searched for ``metrics.json``.
        x: key of an override that is a number, such as ``task.train_count``.
        metrics: which, by default all.
        plot: also draw them, one panel a metric, in this PNG file.
        markdown: also write the table here.
        force: whether files that are there may be written over.

    Raises:
        MetagenError: no finished run, no number for ``x``, an unknown metric, a run that is there twice,
            runs that were judged on different episodes at the same ``x``, or a file that is there.
    """
    for option, path in (("--plot", plot), ("--markdown", markdown)):
        if path:
            check_new_file(option, path, force)
    if plot and markdown and plot.resolve() == markdown.resolve():
        raise MetagenError(f"--plot and --markdown are both {plot}: name another file")
    found_runs, left = collect(folders)
    runs = {run.folder: run.record for run in found_runs}
    keys, points = _points(runs, x)
    _check_twice(points)
    for at in {point.x for point in points}:
        _check_episodes(run for p in points if p.x in (at, None) for run in p.runs.values())
    names = _names(runs.values(), metrics)
    caption = _caption([len(point.runs) for point in points])
    summaries = [_summaries(list(point.runs.values()), names) for point in points]
    rows = [_row(keys, x, point, found) for point, found in zip(points, summaries, strict=True)]
    terminal, text = comparison_table(rows)
    if markdown:
        write_text(markdown, f"{caption}.\n\n{text}")
    if plot:
        from metagen.report.curves import curves_plot  # matplotlib is slow to import

        lines: dict[str, list[tuple[float | None, Mapping[str, Any]]]] = {}
        for point, found in zip(points, summaries, strict=True):
            lines.setdefault(_label(keys, point.labels), []).append((point.x, found))
        curves_plot(lines, {name: _heading(runs.values(), name) for name in names}, x, caption, plot)
    notes = [*([f"plot {plot}"] if plot else []), *left_lines(left)]
    pairs = [(run.folder, short_of(run.record)) for run in found_runs]
    notes += [f"short: {folder} has {short}" for folder, short in pairs if short is not None]
    return "\n\n".join([caption, terminal, *(["\n".join(notes)] if notes else [])])


def _points(runs: Mapping[Path, Record], x: str) -> tuple[list[str], list[CurvePoint]]:
    """Return the keys that label the lines, and the points, line by line with growing x."""
    settings = {folder: settings_of(run) for folder, run in runs.items()}
    places = {folder: _place(values, x, folder) for folder, values in settings.items()}
    if all(place is None for place in places.values()):
        numbers = {key for values in settings.values() for key in values if _number(values[key]) is not None}
        raise MetagenError(f"--x {x}: no run has a number of that name{nearest(x, sorted(numbers))}")
    overridden = {key for run in runs.values() for key in overrides_of(run)} - {x, "seed"}
    keys = [key for key in differing(list(settings.values())) if key in overridden]
    points: dict[Any, CurvePoint] = {}
    for folder, run in runs.items():
        labels = tuple(settings[folder].get(key) for key in keys)
        points.setdefault((labels, places[folder]), CurvePoint(labels, places[folder], {})).runs[folder] = run
    lines = list(dict.fromkeys(point.labels for point in points.values()))

    def order(point: CurvePoint) -> tuple[int, float]:
        return lines.index(point.labels), math.inf if point.x is None else point.x

    return keys, sorted(points.values(), key=order)


def _place(settings: Mapping[str, str], x: str, folder: Path) -> float | None:
    value = settings.get(x, "null")
    place = _number(value)
    if place is None and value != "null":
        raise MetagenError(f"--x {x}: it is '{value}' in {folder}; expected a number in every run")
    return place


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_twice(points: Iterable[CurvePoint]) -> None:
    """Refuse two runs of the same seed at one point: they would count as independent."""
    for point in points:
        seeds: dict[int, Path] = {}
        for folder, run in point.runs.items():
            if other := seeds.get(run["seed"]):
                raise MetagenError(
                    f"{other} and {folder} are the same run twice: name folders with one of them"
                )
            seeds[run["seed"]] = folder


def _check_episodes(runs: Iterable[Record]) -> None:
    if len({run["episodes"]["sha256"] for run in runs}) > 1:
        raise MetagenError(
            "the runs were judged on different episodes: compare those of one task and data set"
        )


def _names(runs: Iterable[Record], wanted: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    for name in wanted or ():
        if name not in known:
            hint = nearest(name, known) or f"; they have {', '.join(known)}"
            raise MetagenError(f"--metric {name}: the runs have no such metric{hint}")
    return list(wanted or known)


def _summaries(runs: Sequence[Record], names: Iterable[str]) -> dict[str, Any]:
    """Return mean, ci95 and n by metric, over the runs or of the only one; not of what one of them lacks."""
    return {
        name: _summary([run["metrics"][name] for run in runs])
        for name in names
        if all(name in run["metrics"] for run in runs)
    }


def _summary(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(found) == 1:
        return found[0]
    return summarize([math.nan if summary["mean"] is None else summary["mean"] for summary in found])


def _caption(counts: Sequence[int]) -> str:
    """Say over what the intervals are: runs (seeds) at each point ``counts``."""
    most, least = max(counts), min(counts)
    if most == 1:
        return "95 % intervals over the test episodes of one seed"
    if least == 1:
        return "Means and 95 % intervals over seeds (Student's t), over test episodes where there is one seed"
    seeds = f"{least}" if least == most else f"{least} to {most}"
    return f"Means and 95 % intervals over {seeds} seeds (Student's t)"


def _row(keys: Sequence[str], x: str, point: CurvePoint, found: Mapping[str, Any]) -> dict[str, Any]:
    at = None if point.x is None else f"{point.x:.12g}"
    return {**dict(zip(keys, point.labels, strict=True)), x: at, "seeds": len(point.runs), **found}


def _label(keys: Sequence[str], labels: Sequence[str | None]) -> str:
    return ", ".join(f"{key}={value or 'default'}" for key, value in zip(keys, labels, strict=True))


def _heading(runs: Iterable[Record], name: str) -> tuple[str, str]:
    """Return the title and the unit of a metric's panel; an older record does not know what is better."""
    run = next(run for run in runs if name in run["metrics"])
    better = run.get("better", {}).get(name)
    return name.replace("_", " ") + (f" ({better} is better)" if better else ""), run.get("units", {}).get(
        name, ""
    )
