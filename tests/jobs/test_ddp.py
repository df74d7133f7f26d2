"""Ranks that share the tasks of a step take the step of one process with the whole batch."""

import json

import pytest
import torch
from command_line import fails

from metagen.cli.main import run
from metagen.data.stream import EVERYTHING
from metagen.training.parallel import alone, devices

TINY = [
    "learner=meta_sgd", "learner.steps=1", "metric=[negative_elbo]", "samples=2",
    "task.batch=4", "task.episodes=2", "task.val_episodes=2", "trainer.max_steps=3",
    "trainer.val_check_interval=2", "trainer.precision=64-true", "trainer.enable_progress_bar=false",
    "model.channels=8", "model.hidden=16", "data.size=16", "learner.test_steps=1",
]  # fmt: skip
RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def test_two_ranks_equal_one_process(tmp_cwd):
    assert run(["train", *TINY, "hydra.run.dir=one"]) == 0
    assert run(["train", *TINY, *RANKS, "hydra.run.dir=two"]) == 0
    records = [json.loads((tmp_cwd / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert [record["training"]["ranks"] for record in records] == [1, 2]
    assert records[0]["episodes"] == records[1]["episodes"]
    assert records[1]["per_episode"]["negative_elbo"] == pytest.approx(
        records[0]["per_episode"]["negative_elbo"], rel=1e-10
    )
    for name in ("best", "last"):
        one, two = (
            torch.load(tmp_cwd / folder / f"checkpoints/{name}.ckpt", weights_only=True)
            for folder in ("one", "two")
        )
        assert one["global_step"] == two["global_step"]
        for key, value in one["state_dict"].items():
            assert value.dtype == torch.float64
            assert torch.allclose(value, two["state_dict"][key], rtol=1e-10, atol=1e-10), key
        scores = [
            float(state["best_model_score"])
            for saved in (one, two)
            for state in saved["callbacks"].values()
            if "best_model_score" in state
        ]
        assert scores[0] == pytest.approx(scores[1], rel=1e-10), "the loss of the validation"
    files = [
        {path.name.split(".")[0] for path in (tmp_cwd / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    ]
    assert files[0] == files[1], "no rank but the first one leaves a file"
    assert [path.name for path in sorted(tmp_cwd.iterdir())] == ["one", "two"]


MISTAKES = [
    ([*RANKS, "task.batch=3"], ["task.batch=3", "2 ranks", "task.batch=4"]),
    ([*RANKS, "trainer.devices=0"], ["trainer.devices=0"]),
    (["trainer.devices=2"], ["trainer.devices=2", "trainer=ddp"]),
    ([*RANKS, "trainer.num_nodes=2"], ["trainer.num_nodes=2", "MASTER_ADDR"]),
    ([*RANKS, "experiment=supervised_basenet", "data=digits"], ["plain training", "trainer=gpu"]),
]


@pytest.mark.parametrize(("overrides", "words"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_what_cannot_be_shared_gets_one_line(overrides, words, tmp_cwd, capsys, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert fails(["train", *overrides], capsys, *words) in (1, 2)
    assert list(tmp_cwd.iterdir()) == []


@pytest.mark.parametrize(("asked", "found"), [(1, 1), (3, 3), ("0,2", 2), ([0, 1, 2], 3), ("auto", 1)])
def test_devices_are_counted(asked, found):
    trainer = {"accelerator": "cpu", "devices": asked, "strategy": {"_target_": "any"}}
    assert devices(trainer) == found
    assert devices({**alone(trainer), "strategy": None}) == 1


def test_shares_make_up_the_batch():
    from conftest import composed

    from metagen.jobs.build import load_data

    stream = load_data(composed("task.batch=4")).streams.train
    whole, parts = stream.batch(5, EVERYTHING), [stream.batch(5, slice(rank, None, 2)) for rank in (0, 1)]
    assert torch.equal(torch.stack([part.query.x for part in parts], 1).flatten(0, 1), whole.query.x)
    assert torch.equal(torch.stack([part.support.key for part in parts], 1).flatten(), whole.support.key)
