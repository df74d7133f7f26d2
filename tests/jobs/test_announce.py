"""What a training prints where a configuration asks: what a profiler measured, which modules there are."""

import re

import pytest

from metagen.cli.main import run

TINY = [
    "task.episodes=2", "task.val_episodes=2", "task.batch=2", "trainer.max_steps=2",
    "trainer.val_check_interval=2", "trainer.enable_progress_bar=false", "samples=2", "model.channels=4",
    "model.hidden=8", "metric=[negative_elbo]", "logger=none", "hydra.run.dir=here",
]  # fmt: skip


@pytest.fixture
def shown(tmp_cwd, capsys):
    def train(*words):
        assert run(["train", *TINY, *words]) == 0
        return capsys.readouterr().out

    return train


def test_a_profiler_and_a_summary_that_are_asked_for_are_shown(shown):
    text = shown("+trainer.profiler=simple", "trainer.enable_model_summary=true")
    table = next(line for line in text.splitlines() if re.match(r"[\s|┃]*Name", line))
    assert "Type" in table
    assert "Params" in table
    assert re.search(r"[|│]\s*model\s*[|│]\s*VAE\s*[|│]", text), "as Lightning prints it, or rich"
    assert "Trainable params" in text
    rows = [line for line in text.splitlines() if "run_training_batch" in line]
    assert re.search(r"\|\s*2\s*\|", "".join(rows)), "both training steps were measured"
    assert text.index("Trainable params") < text.index("run_training_batch") < text.index("negative elbo")


def test_by_default_neither_is(shown):
    text = shown()
    assert "Params" not in text
    assert "run_training_batch" not in text
