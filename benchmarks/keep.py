"""Keep a run's record among the committed results: python benchmarks/keep.py RUN NAME [--machine TEXT].

Writes benchmarks/results/NAME.json: the run's metrics.json without the values of every episode and without
anything that belongs to the machine alone (folders, launcher settings), with the date and the machine.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MOST_CLASSES = 20


def shortened(record: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in record.items() if not key.startswith("per_episode")}
    out["split"] = {
        side: names if len(names) <= MOST_CLASSES else f"{len(names)} classes"
        for side, names in record["split"].items()
    }
    out["overrides"] = [
        named(item) for item in record["overrides"] if not item.lstrip("+~").startswith("hydra")
    ]
    if "checkpoint" in record["training"]:
        out["training"] = record["training"] | {"checkpoint": Path(record["training"]["checkpoint"]).name}
    if record.get("likelihood"):
        rows = record["likelihood"]
        out["likelihood"] = {
            key: [{k: v for k, v in row.items() if k != "per_episode"} for row in value]
            if isinstance(value, list)
            else value
            for key, value in rows.items()
        }
    return out


def named(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key}={Path(value.strip(chr(39))).name}" if "/" in value else override


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--machine", default="2 CPU cores, shared with other jobs, one thread a run")
    args = parser.parse_args()
    record = shortened(json.loads((args.run / "metrics.json").read_text()))
    record |= {"date": date.today().isoformat(), "machine": args.machine}
    path = RESULTS / f"{args.name}.json"
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(path)


if __name__ == "__main__":
    main()
