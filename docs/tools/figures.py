"""Figures in the text: each one is a link to the record that it is read from.

``[97.6 ± 0.6 %](../benchmarks/results/omniglot_to_mnist-seed1.json "recognised")`` names a record and,
in the link's title, what to read from it: ``METRIC``, ``METRIC@STEP`` (after so many adaptation steps),
``likelihood.N`` (nats given N images) or ``time`` (of the training, and on what). This script writes the
text of every such link anew, so that no number is typed by hand:

    python docs/tools/figures.py            # refresh README*.md and the guide
    python docs/tools/figures.py --check    # say what would change

A claim about figures stands beside them in a comment and is checked by the same script:

    <!-- holds: mnist_holdout-chain:recognised > mnist_holdout-scratch:recognised -->

Figures of a table that is a Markdown file of its own are linked to its section of the results, and must stand
in the file literally.
``<`` and ``>`` ask for 95 % intervals that do not overlap, ``~`` for intervals that do.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from metagen.report.tables import number

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FIGURE = re.compile(r'\[([^\]\[]*)\]\(([^)\s]*benchmarks/results/([\w.+-]+)\.json) "([^"]+)"\)')
CLAIM = re.compile(r"<!--\s*holds:\s*(.*?)\s*-->", re.S)
QUOTE = re.compile(r"\[([^\]\[]*\d[^\]\[]*)\]\([^)\s]*generated/results\.md#([\w.+-]+)\)")
TERM = re.compile(r"([\w.+-]+):([\w.@]+)\s*([<>~])\s*([\w.+-]+):([\w.@]+)")


class Missing(Exception):
    """A figure that no record holds."""


@cache
def record(name: str) -> Mapping[str, Any]:
    """Return a committed record by its file's name without ``.json``."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise Missing(f"no record {name}: it should be benchmarks/results/{name}.json")
    return json.loads(path.read_text())


def value(name: str, what: str) -> Mapping[str, Any]:
    """Return ``{"mean", "ci95"}`` of one figure of a record."""
    found = record(name)
    metric, _, step = what.partition("@")
    if metric.startswith("likelihood."):
        rows = {str(row["images"]): row for row in (found.get("likelihood") or {}).get("contexts", [])}
        hit = rows.get(metric.removeprefix("likelihood."))
    elif step:
        points = {str(point["step"]): point["metrics"] for point in found["adaptation"]}
        hit = points.get(step, {}).get(metric)
    else:
        hit = found["metrics"].get(metric)
    if hit is None:
        raise Missing(f"{name} has no {what}")
    return hit


def figure(name: str, what: str) -> str:
    """Return one figure as text, with its interval and unit."""
    if what == "time":
        return time(record(name))
    hit, metric = value(name, what), what.partition("@")[0]
    unit = "nats" if metric.startswith("likelihood.") else record(name)["units"].get(metric, "")
    return f"{number(hit['mean'], hit['ci95'])} {unit}".rstrip()


def time(found: Mapping[str, Any]) -> str:
    """Return how long a run trained, and on what."""
    return f"{duration(found['training'])}, {found['machine'].split(',')[0]}"


def duration(training: Mapping[str, Any]) -> str:
    """Return the time of a training, evaluation included."""
    seconds = training.get("seconds")
    if seconds is None:
        return "unknown"
    if not training.get("steps"):
        return "0 min"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def refreshed(text: str) -> str:
    """Return ``text`` with every figure as its record has it."""
    return FIGURE.sub(lambda m: f'[{figure(m[3], m[4])}]({m[2]} "{m[4]}")', text)


def broken_claims(text: str) -> Iterator[str]:
    """Yield the claims of ``text`` that its records do not bear out, or that cannot be read."""
    for claim in CLAIM.findall(text):
        for term in claim.split(";"):
            match = TERM.fullmatch(term.strip())
            if match is None:
                yield f"cannot read the claim '{term.strip()}'"
            elif not _holds(value(match[1], match[2]), match[3], value(match[4], match[5])):
                yield f"does not hold: {term.strip()}"


def misquoted(text: str) -> Iterator[str]:
    """Yield the figures that are linked to a table in Markdown and do not stand in it."""
    for quote, name in QUOTE.findall(text):
        table = RESULTS / f"{name}.md"
        if not table.is_file() or quote not in table.read_text():
            yield f"{name} does not say '{quote}'"


def _holds(a: Mapping[str, Any], relation: str, b: Mapping[str, Any]) -> bool:
    gap, width = a["mean"] - b["mean"], a["ci95"] + b["ci95"]
    return {"<": gap < -width, ">": gap > width, "~": abs(gap) <= width}[relation]


def texts() -> list[Path]:
    """Return every page that is written by hand."""
    guide = ROOT / "docs"
    pages = [p for p in guide.rglob("*.md") if not {"_build", "generated"} & {*p.relative_to(guide).parts}]
    return [*sorted(ROOT.glob("README*.md")), *sorted(pages)]


def main() -> int:
    """Refresh (or with ``--check`` compare) all texts; return 1 where a claim fails or a figure is old."""
    failed = False
    for path in texts():
        old = path.read_text()
        try:
            new, broken = refreshed(old), [*broken_claims(old), *misquoted(old)]
        except Missing as error:
            new, broken = old, [str(error)]
        if new != old and "--check" in sys.argv:
            broken.append("has figures that are not those of the records: run docs/tools/figures.py")
        elif new != old:
            path.write_text(new)
        for line in broken:
            sys.stderr.write(f"{path.relative_to(ROOT)}: {line}\n")
        failed |= bool(broken)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
