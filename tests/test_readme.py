"""README in both languages: its commands compose, its example runs, its length, and both say the same."""

import json
import re

import pytest
from guide_texts import READMES, assert_runs, commands, examples, put, trained

from metagen.cli import main as cli

CASES = [(path, line) for path in READMES for line in commands(path)]
TINY = [
    "trainer.max_steps=2",
    "trainer.val_check_interval=1",
    "trainer.enable_progress_bar=false",
    "task.episodes=2",
    "task.val_episodes=2",
    "task.batch=2",
    "samples=2",
    "metric=[negative_elbo]",
]


def test_both_languages_have_the_same_commands_and_figures():
    english, chinese = (path.read_text() for path in READMES)
    strip = [re.sub(r"\s+#.*", "", line) for line in commands(READMES[0])]
    assert strip == [re.sub(r"\s+#.*", "", line) for line in commands(READMES[1])]
    figures = [re.findall(r"\[([^\]]+)\]\((benchmarks/results/[^)]+)\)", text) for text in (english, chinese)]
    assert figures[0] == figures[1]
    assert examples(READMES[0]) == examples(READMES[1])
    assert len(strip) > 10


@pytest.mark.parametrize(("path", "line"), CASES, ids=[f"{p.stem}: {c}" for p, c in CASES])
def test_command_of_the_readme(path, line, tmp_cwd, monkeypatch):
    assert_runs(line, put(examples(path), tmp_cwd, monkeypatch), trained(path))


def test_every_indented_or_unmarked_command_would_be_missed():
    for path in READMES:
        outside = re.sub(r"^```sh\n.*?^```", "", path.read_text(), flags=re.S | re.M)
        assert not re.search(r"^\s*(metagen|make) \w", outside, re.M), "put commands into a block ```sh"


def test_the_example_of_a_learner_trains(tmp_cwd, monkeypatch):
    found = put(examples(READMES[0]), tmp_cwd, monkeypatch)
    assert cli.run(["train", "learner=sign_descent", found, *TINY, "hydra.run.dir=out"]) == 0
    record = json.loads((tmp_cwd / "out" / "metrics.json").read_text())
    curve = [point["metrics"]["negative_elbo"]["mean"] for point in record["adaptation"]]
    assert curve[-1] < curve[0], "its steps descend"


def words(text):
    """Words of Latin letters and numbers, and Chinese characters, of which 1.6 make a word."""
    chinese = re.findall(r"[\u4e00-\u9fff]", text)
    latin = [
        word for word in re.sub(r"[\u3000-\u9fff\uff00-\uffef]", " ", text).split() if word[0] not in "|*#-="
    ]
    return len(latin) + len(chinese) / 1.6


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_length(path):
    assert words(path.read_text()) <= 700
