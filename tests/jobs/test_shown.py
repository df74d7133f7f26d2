"""The table after a test: few rows, directions, what real images score, and where the rest is."""

from pathlib import Path
from types import SimpleNamespace

from conftest import composed

from metagen.config.trusted import instantiate
from metagen.jobs.shown import table_of

JUDGE = SimpleNamespace(accuracy=98.75)


def shown(metrics):
    summary = {name: {"mean": 10.0 + k, "ci95": 0.5, "n": 20} for k, name in enumerate(metrics)}
    return list(table_of(metrics, summary, JUDGE, Path("runs", "a")))


def metrics_of(experiment):
    nodes = composed(f"experiment={experiment}").metrics
    return {name: instantiate(node, name) for name, node in nodes.items()}


def test_each_row_says_the_direction_and_what_real_images_score():
    table, legend = shown(metrics_of("quickstart"))
    rows = [line.split() for line in table.splitlines()[2:]]
    real = {" ".join(row[: row.index("±") - 1]): row[-2] for row in rows}
    assert real == {
        "recognised": "98.75", "diversity": "1.000", "coverage relative": "1.000",
        "negative elbo": "-", "memorisation": "1.000",
    }  # fmt: skip
    assert all({"higher", "lower"} & set(row) for row in rows)
    assert len(legend.splitlines()) == len(rows)


def test_at_most_eight_rows_and_where_the_others_are():
    metrics = metrics_of("omniglot_to_mnist")
    table, legend, rest = shown(metrics)
    assert len(table.splitlines()) == 2 + 8
    assert len(legend.splitlines()) == 8
    coverage = next(line.split() for line in table.splitlines() if line.startswith("coverage  "))
    assert coverage[-2] == f"{10 + [*metrics].index('coverage_real')}.00"
    named = {name for name in metrics if name.replace("_", " ") in rest.partition(":")[0]}
    assert {"recall", "fid"} <= named
    assert f"{Path('runs', 'a')}/metrics.json" in rest.replace("\\", "/")
