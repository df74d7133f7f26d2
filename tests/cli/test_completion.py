"""Tab completion of commands, groups and keys."""

import pytest

from metagen.cli import main as cli


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("metagen rep", ["reproduce"]),
        ("metagen train learner=meta_", ["learner=meta_curvature", "learner=meta_sgd"]),
        ("metagen train -m seed=1 task.sho", ["task.shots="]),
        ("metagen compare outputs", []),
    ],
)
def test_completes(line, expected, monkeypatch, capsys, tmp_cwd):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert cli.run(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == expected
    assert list(tmp_cwd.iterdir()) == [], "nothing is left behind"
