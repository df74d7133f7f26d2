"""Run a finished run again and lay its metrics beside the old ones: the job behind ``metagen reproduce``."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metagen.errors import MetagenError
from metagen.files import write_json
from metagen.jobs.environment import git_commit, versions
from metagen.reading import read_json
from metagen.report.tables import comparison_table
from metagen.runs.places import located
from metagen.runs.reopen import changed_keys, reopen, split_hydra

Record = dict[str, Any]


class Reproduction:
    """A finished run, to be run again from the configuration that was saved with it.

    Args:
        run: folder of a run or of a sweep's job, trained or evaluated; nothing in it is changed.
        overrides: on top of the run's own.
        force: whether a run in the new folder is replaced.

    Attributes:
        task: ``"train"`` or ``"evaluate"``, as it was made.
        again: the new run.

    Raises:
        MetagenError: no finished run, a path in its configuration that this machine does not have, or a
            folder for the new run that is not empty.
    """

    def __init__(self, run: Path, overrides: Sequence[str] = (), force: bool = False) -> None:
        run = located(run)
        self.run, self.old = run, _record(run)
        self.given, hydra = split_hydra(overrides)
        self.task = "evaluate" if self.old["training"].get("checkpoint") else "train"
        self.opened = reopen(run, self.given)
        self.again = self.opened.run(hydra, "evaluation" if self.task == "evaluate" else "new", force=force)
        _check_new(self.again.folder, force)

    def before(self) -> str:
        """Return what is known to differ before the run, in lines for the user."""
        lines = [f"{self.task}s again {self.run}"]
        lines += [f"new override  {text}" for text in self.given]
        lines += [f"today's conf no longer takes '{text}'; what it set is kept" for text in self.opened.lost]
        lines += _listed("today's conf has, the saved value counts", self.opened.changed)
        lines += _listed("not on this machine", self.opened.moved)
        lines += _listed("code", changed_keys({"commit": self.old.get("git")}, {"commit": git_commit()}))
        lines += _listed("versions", _changed(self.old.get("versions", {}), versions()))
        return "\n".join(lines if len(lines) > 1 else [*lines, "nothing differs: conf, code and versions"])

    def share_threads(self) -> None:
        """Take as many threads as the run had: sums over another number of them are rounded differently."""
        threads = self.old.get("machine", {}).get("threads")
        if isinstance(threads, int) and 0 < threads <= (os.cpu_count() or 1):
            torch.set_num_threads(threads)

    def after(self) -> tuple[str, bool]:
        """Return old and new metrics side by side with a verdict, and False where they should not differ."""
        new = _record(self.again.folder)
        equal, reasons = results(self.old) == results(new), expected(self.old, new, self.given)
        found = {"run": str(self.run), "equal": equal, "expected": reasons, "overrides": self.given}
        write_json(self.again.folder / "reproduction.json", found | self.opened._asdict())
        return f"{side_by_side(self.old, new)}\n{_verdict(self.old, new, equal, reasons)}", equal or bool(
            reasons
        )


def side_by_side(old: Record, new: Record) -> str:
    """Return a table: the mean of every metric in both runs, and in how many episodes they differ."""
    rows = []
    for name in dict.fromkeys([*old["metrics"], *new["metrics"]]):
        means = [record["metrics"].get(name, {}).get("mean") for record in (old, new)]
        values = [record["per_episode"].get(name, []) for record in (old, new)]
        row: dict[str, Any] = {"metric": name}
        row |= {key: _digits(mean) for key, mean in zip(("old", "new"), means, strict=True)}
        row["difference"] = _digits(None if None in means else means[1] - means[0])
        differing = sum(a != b for a, b in zip(*values, strict=False))
        comparable = len(values[0]) == len(values[1])
        row["episodes that differ"] = f"{differing} of {len(values[1])}" if comparable else "-"
        rows.append(row)
    return comparison_table(rows)[0]


def results(record: Record) -> dict[str, Any]:
    """Return what of a record must be equal in two equal runs: everything but times and circumstances."""
    kept = {key: record.get(key) for key in ("split", "episodes", "metrics", "per_episode", "likelihood")}
    curve = [{"step": p["step"], "metrics": _defined(p["metrics"])} for p in record.get("adaptation", [])]
    return kept | {"adaptation": curve}


def _defined(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured: an earlier version wrote null for metrics of the last step only."""
    return {name: summary for name, summary in found.items() if summary["mean"] is not None}


def expected(old: Record, new: Record, given: Sequence[str]) -> list[str]:
    """Return why two runs may differ: other overrides, versions, device, data or checkpoint."""
    reasons = [f"the override {text}" for text in given]
    if old["device"] != new["device"]:
        reasons.append(f"device {old['device']} -> {new['device']}")
    for name in ("versions", "machine", "data"):
        if name in old:  # a run of an earlier version did not write down all of it
            found = (_changed if name == "versions" else changed_keys)(old[name], new[name])
            reasons += [f"{name}.{key} {_short(a)} -> {_short(b)}" for key, (a, b) in found.items()]
    a, b = (record["training"].get("sha256") for record in (old, new))
    if a and a != b:
        reasons.append("another checkpoint")
    return reasons


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return which versions differ; an earlier version wrote down those of fewer packages."""
    return changed_keys(dict(old), {name: one for name, one in new.items() if name in old})


def _verdict(old: Record, new: Record, equal: bool, reasons: Sequence[str]) -> str:
    why = "; ".join(reasons)
    if equal:
        count = f"all {len(new['metrics'])} metrics of all {new['episodes']['count']} episodes"
        return f"identical: {count}, to the last bit" + (f", although {why}" if why else "")
    if reasons:
        return f"different, which is to be expected: {why}"
    code = f"the code is another one ({_short(old.get('git'))} -> {_short(new.get('git'))})"
    changed = old.get("git") != new.get("git") or str(new.get("git")).endswith("+")
    return "DIFFERENT on the same versions and device: " + (
        code if changed else "the same code; is something random without the run's seed?"
    )


def _record(run: Path) -> Record:
    if (run / "multirun.yaml").is_file():
        raise MetagenError(f"{run} is a sweep: name one of its jobs, such as {run}/0")
    path = run / "metrics.json"
    if not run.is_dir():
        raise MetagenError(f"no folder {run}: name a run's folder, such as outputs/DATE/TIME")
    if not path.is_file():
        raise MetagenError(f"{run} has no metrics.json to compare with: name a run that came to its end")
    try:
        record = read_json(path)
        _ = record["metrics"], record["per_episode"], record["training"], record["device"]
    except (ValueError, KeyError, TypeError) as error:
        raise MetagenError(f"{path} cannot be read ({error}): name another run") from error
    return dict(record)


def _check_new(folder: Path, force: bool) -> None:
    """Refuse a folder for the new run that holds something."""
    if not force and folder.exists() and any(folder.iterdir()):
        raise MetagenError(f"hydra.run.dir={folder} exists and is not empty: name a new folder")


def _listed(title: str, found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{title}: {key} {_short(old)} -> {_short(new)}" for key, (old, new) in found.items()]


def _short(value: Any) -> str:
    text = str(value)
    return text[:10] + text[40:] if len(text) in (40, 41, 64) and " " not in text else text


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.7g}"
