"""The results page: one section for each experiment, from everything in benchmarks/results/."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metagen.config import renamed
from metagen.config.overrides import key_of
from metagen.report.tables import comparison_table
from tools.figures import RESULTS, duration
from tools.plots import adaptation_plot

LOCAL = ("trainer.enable_progress_bar", "workers", "chunk")
"""Overrides that change no result."""
HEAD = """\
# Results

Made from the files in `benchmarks/results/` when this guide is built; none of it is written by hand.
Means with 95 % intervals over test episodes. *overrides* is what to type after `metagen train` to run it
again; `checkpoint=best.ckpt` is the best checkpoint of another run, which it starts from or only evaluates. Diversity and memorisation are 1 for real images: read *recognised* beside them only, since the mean
of five images is recognised, too. What was measured before records were kept, and the caveats of single
experiments, stand in [notes on the results](../results-notes.md).
"""


def load(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return the records of runs by name; other JSON files are left to the pages beside them."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: one for name, one in found.items() if isinstance(one, dict) and "metrics" in one}


def overrides(record: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a run that are part of what it measured, in today's names."""
    words = renamed.overrides(record.get("overrides", []))
    return [word for word in words if key_of(word) not in LOCAL]


def experiment(name: str, record: Mapping[str, Any]) -> str:
    """Return the experiment that a record belongs to."""
    for word in record.get("overrides", []):
        if word.startswith("experiment="):
            return word.partition("=")[2]
    return (record.get("choices") or {}).get("experiment") or name.partition("-")[0]


def page(out: Path, folder: Path = RESULTS) -> str:
    """Return the page, after drawing its pictures into ``out``."""
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, record in load(folder).items():
        groups.setdefault(experiment(name, record), {})[name] = record
    sections = [section(title, records, out) for title, records in sorted(groups.items())]
    return "\n".join([HEAD, *sections, *others(folder, out)])


def section(title: str, records: Mapping[str, Mapping[str, Any]], out: Path) -> str:
    """Return the tables and the picture of one experiment."""
    rows = [_row(name, record) for name, record in records.items()]
    parts = [f"## {title}", "", f"`conf/experiment/{title}.yaml`", "", comparison_table(rows, _cell)[1]]
    likelihoods = [row for n, r in records.items() if r.get("likelihood") for row in _likelihood(n, r)]
    if likelihoods:
        parts += ["Negative log-likelihood of a new image in nats, given so many images of its class:", ""]
        parts += [comparison_table(likelihoods, _cell)[1]]
    if adaptation_plot(labels(records), out / f"adaptation-{title}.png"):
        parts += [f"![{title}: quality over adaptation steps](adaptation-{title}.png)", ""]
    parts += [
        "How they were made:",
        "",
        comparison_table([_made(n, r) for n, r in records.items()], _cell)[1],
    ]
    parts += [*_versions(records), ""]
    return "\n".join(parts)


def labels(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return records by what tells them apart: the ends of their names after what all have in common."""
    names = list(records)
    if len(names) == 1:
        return dict(records)
    words = [name.split("-") for name in names]
    same = 0
    while all(len(w) > same + 1 and w[same] == words[0][same] for w in words):
        same += 1
    return {"-".join(w[same:]): records[name] for w, name in zip(words, names, strict=True)}


def _cell(text: str) -> str:
    """Return a cell as it stands: our own records hold links and code."""
    return text.replace("|", "\\|")


def _row(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    units = record.get("units", {})
    wanted = [word for word in overrides(record) if not word.startswith("experiment=")]
    row: dict[str, Any] = {"record": _link(name), "overrides": f"`{' '.join(wanted)}`" if wanted else ""}
    for metric, found in record["metrics"].items():
        if found.get("mean") is not None:
            row[f"{metric} {units.get(metric, '')}".strip()] = found
    return row | {"training": duration(record.get("training", {}))}


def _likelihood(name: str, record: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    found = record["likelihood"]
    tables = {found["kind"]: found["contexts"]}
    if found.get("with_replacement_leaky"):
        tables[f"{found['kind']}; targets drawn with replacement, which leak"] = found[
            "with_replacement_leaky"
        ]
    for kind, rows in tables.items():
        yield {"record": _link(name), "kind": kind} | {f"{row['images']} images": row for row in rows}


def _made(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    training = record.get("training", {})
    return {
        "record": _link(name),
        "date": record.get("date"),
        "machine": record.get("machine"),
        "device": record.get("device"),
        "steps": training.get("steps"),
        "seconds": None if training.get("seconds") is None else f"{training['seconds']:,.0f}",
        "test episodes": record.get("episodes", {}).get("count"),
        "parameters": f"{sum((record.get('parameters') or {}).values()):,}",
        "commit": str(record.get("git") or "")[:10] or None,
    }


def _versions(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the versions, a line for all records that have the same."""
    found: dict[str, list[str]] = {}
    for name, record in records.items():
        text = ", ".join(f"{package} {number}" for package, number in record.get("versions", {}).items())
        found.setdefault(text or "versions unknown", []).append(name)
    return [f"- {text}{'' if len(found) == 1 else ': ' + ', '.join(names)}" for text, names in found.items()]


def _link(name: str) -> str:
    return f"[{name}](../../benchmarks/results/{name}.json)"


def others(folder: Path, out: Path) -> Sequence[str]:
    """Return the tables that stand in Markdown files of their own, with their pictures."""
    parts = []
    for path in sorted(folder.glob("*.md")):
        text = path.read_text()
        body = "\n".join(f"##{line}" if line.startswith("#") else line for line in text.splitlines())
        parts += [f"## {path.stem}", "", body, ""]
        if path.with_suffix(".png").is_file():
            (out / path.with_suffix(".png").name).write_bytes(path.with_suffix(".png").read_bytes())
            parts += [f"![{path.stem}]({path.stem}.png)", ""]
    return parts
