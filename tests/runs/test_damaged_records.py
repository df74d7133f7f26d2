"""One damaged record among many: it is left out and named, and the others are compared."""

import copy
import json

import pytest
from comparison_records import record, write

from metagen.cli.main import run
from metagen.errors import MetagenError
from metagen.runs.result import Result

GOOD = [
    record("scratch", 0, {1: {"recognised": [10.0, 20.0]}, 2: {"recognised": [20.0, 30.0]}}),
    record("maml", 0, {1: {"recognised": [30.0, 40.0]}, 2: {"recognised": [50.0, 60.0]}}),
]


def places(node, path=()):
    """Every place in a record, whole containers included."""
    if path:
        yield path
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield from places(node[key], (*path, key))


def damaged(path, value):
    bad = copy.deepcopy(record("reptile", 0, {1: {"recognised": [3.0, 4.0]}, 2: {"recognised": [5.0, 6.0]}}))
    node = bad
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return bad


@pytest.mark.parametrize("value", [..., None, "x", {}], ids=repr)
def test_no_damage_of_one_record_stops_the_others(value, tmp_path, capsys):
    for number, path in enumerate(places(GOOD[0])):
        folder = write(tmp_path / str(number), *GOOD, damaged(path, value))
        for command in (["compare"], ["list"], ["compare", "--budgets"], ["compare", "--x", "seed"]):
            code = run([command[0], str(folder), *command[1:]])
            out, err = capsys.readouterr()
            assert "Traceback" not in err, (command, path, err)
            if code == 0:
                assert "maml" in out, (command, path)
            else:
                assert err.startswith("metagen: error: "), (command, path, err)
                assert command == ["compare", "--x", "seed"], (command, path, err)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("metrics", "recognised"), 5), (("episodes", "sha256"), ...), (("per_episode", "recognised", 0), "x"),
     (("adaptation", 0, "step"), None), (("seed",), True), (("overrides", 0), 3)],
)  # fmt: skip
def test_the_damaged_record_is_named(path, value, tmp_path, capsys):
    folder = write(tmp_path, *GOOD, json.dumps(damaged(path, value)))
    assert run(["compare", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"left out: {folder}/2: its metrics.json cannot be read" in out
    assert ".".join(map(str, path)) in out
    assert run(["list", str(folder)]) == 0
    assert "1 broken" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["5", '{"metrics": 5}', '{"metrics": {"a": {"mean": "b"}}}', "{}"])
def test_a_result_of_another_shape_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(MetagenError, match=r"cannot be read \(.*record of a run.*name a run that came"):
        Result.read(tmp_path)
