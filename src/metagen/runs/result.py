"""The result of a run: its folder, its record, and its metrics as a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError
from metagen.report.rows import Rows
from metagen.runs.records import read_record


@dataclass(frozen=True)
class Result:
    """What a run found.

    folder: where everything lies that it wrote.
    record: its ``metrics.json``.
    """

    folder: Path
    record: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> "Result":
        """Return the result of a finished run.

        Raises:
            MetagenError: the folder holds no record that can be read.
        """
        path = Path(folder) / "metrics.json"
        try:
            return cls(Path(folder), read_record(Path(folder)))
        except (OSError, ValueError) as error:
            raise MetagenError(f"{path} cannot be read ({error}): name a run that came to its end") from error

    @property
    def metrics(self) -> Rows:
        """Return a row for each metric: its mean over the test episodes, 95 % half-width, number, unit."""
        units, better = self.record.get("units", {}), self.record.get("better", {})
        found, main = self.record["metrics"], self.record.get("main")
        return Rows(
            {
                "metric": name,
                **{key: found[name].get(key) for key in ("mean", "ci95", "n")},
                "unit": units.get(name, ""),
                "better": better.get(name, ""),
            }
            for name in sorted(found, key=lambda name: name != main)
        )

    @property
    def per_episode(self) -> Rows:
        """Return a row for each test episode: the value of every metric."""
        values = self.record.get("per_episode", {})
        count = max((len(column) for column in values.values()), default=0)
        return Rows({name: column[i] for name, column in values.items()} for i in range(count))

    def _repr_html_(self) -> str:
        """Return the metrics as a notebook shows them."""
        return self.metrics._repr_html_()
