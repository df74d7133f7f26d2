"""metagen from Python: what the command line does, as functions that return objects."""

import json
import logging
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from PIL import Image
from processes import inside

import metagen

TINY = [
    "task.episodes=2", "task.val_episodes=2", "task.batch=2", "trainer.max_steps=3",
    "trainer.val_check_interval=2", "trainer.enable_progress_bar=false", "judge.epochs=1",
    "judge.min_steps=1", "samples=2", "model.channels=8", "model.hidden=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What a training found, in a folder of its own."""
    with inside(tmp_path_factory.mktemp("api")):
        return metagen.train([*TINY, "learner=chain", "hydra.run.dir=run"])


@pytest.mark.parametrize("name", metagen._PUBLIC)
def test_every_public_name_is_there(name):
    assert getattr(metagen, name) is not None
    assert name in dir(metagen)


def test_import_is_quick_and_no_name_is_hidden_by_a_package():
    code = "import sys, metagen; print('torch' in sys.modules, 'hydra' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
    packages = {path.parent.name for path in Path(metagen.__file__).parent.glob("*/__init__.py")}
    assert not packages & set(metagen._PUBLIC)
    with pytest.raises(AttributeError, match="trian"):
        _ = metagen.trian


def test_compose_writes_nothing(tmp_cwd):
    run = metagen.compose(["experiment=quickstart", "learner=maml", "task.shots=1"])
    assert (run.config["task"]["shots"], run.choices["learner"], run.kind) == (1, "maml", "new")
    assert run.folder.is_absolute()
    assert list(tmp_cwd.iterdir()) == []
    again = metagen.Run.from_json(run.to_json())
    assert (again.config, again.folder, again.choices) == (run.config, run.folder, run.choices)


def test_a_typo_is_one_line(tmp_cwd):
    with pytest.raises(metagen.MetagenError, match="did you mean 'maml'"):
        metagen.compose(["learner=mmaml"])
    with pytest.raises(metagen.MetagenError, match=r"did you mean 'learner.test_steps'"):
        metagen.compose(["learner=chain", "learner.test_step=3"])
    with pytest.raises(metagen.MetagenError, match="folder"):
        metagen.compare()
    assert list(tmp_cwd.iterdir()) == []


@pytest.mark.parametrize("take", [
    metagen.compose, metagen.build, metagen.train, partial(metagen.load, "run"),
    partial(metagen.Trained, "run"), partial(metagen.evaluate, "run"), partial(metagen.resume, "run"),
])  # fmt: skip
@pytest.mark.parametrize(("given", "words"), [
    ("seed=3", "not the text 'seed=3': put brackets around it"),
    ({"seed": 3}, "not dict"),
    ([3], "not one that holds 3"),
    (None, "not None"),
])  # fmt: skip
def test_overrides_are_a_list_of_texts(take, given, words):
    with pytest.raises(metagen.MetagenError) as error:
        take(given)
    start = "overrides: expected a list of texts, as in ['experiment=quickstart'], "
    assert str(error.value).startswith(start + words)


@pytest.mark.parametrize("take", [metagen.load, metagen.evaluate, metagen.resume, metagen.compare])
@pytest.mark.parametrize("given", [None, 3, ["outputs"]])
def test_a_folder_is_a_path(take, given):
    with pytest.raises(metagen.MetagenError, match="expected the path of a run's folder") as error:
        take(given)
    assert str(error.value).endswith(f"not {'None' if given is None else type(given).__name__}")


@pytest.mark.parametrize(("options", "words"), [
    ({"by": "learner"}, r"by: expected a list of texts, as in \['learner'\], not the text 'learner'"),
    ({"metrics": [3]}, "metrics: expected a list of texts"),
    ({"budget": "x"}, "budget=x: expected a whole number"),
])  # fmt: skip
def test_options_of_a_comparison(options, words):
    with pytest.raises(metagen.MetagenError, match=words):
        metagen.compare("run", **options)


def test_the_result_is_that_of_the_record_and_a_table(result):
    record = json.loads((result.folder / "metrics.json").read_text())
    first = result.metrics[0]
    assert first["metric"] == record["main"]
    assert {row["metric"]: row["mean"] for row in result.metrics} == {
        name: value["mean"] for name, value in record["metrics"].items()
    }
    assert len(result.per_episode) == 2
    assert f"<td>{first['metric']}</td>" in result._repr_html_()
    assert first["metric"] in str(result.metrics)
    assert isinstance(result.metrics, list), "pandas.DataFrame takes a list of dicts"


def test_logging_of_the_caller_is_left_alone(result, tmp_cwd):
    root = logging.getLogger()
    before = list(root.handlers), root.level
    metagen.train([*TINY, "trainer.max_steps=1", "hydra.run.dir=quiet"])
    assert (list(root.handlers), root.level) == before
    assert "precision" in Path("quiet/metagen.log").read_text()


def test_evaluate_and_compare(result, tmp_cwd):
    again = metagen.evaluate(result.folder, ["hydra.run.dir=again"])
    assert again.record["per_episode"] == result.record["per_episode"]
    assert metagen.resume(result.folder).metrics == result.metrics, "it has come to its end"
    metagen.train([*TINY, "learner=scratch", "hydra.run.dir=scratch"])
    found = metagen.compare(result.folder, "scratch")
    assert {row["learner"] for row in found.scores} == {"chain", "scratch"}
    assert all(isinstance(row["negative_elbo"], float) for row in found.scores)
    assert found.differences[0]["against"] == "scratch"


def test_load_adapts_draws_and_scores(result):
    trained = metagen.load(result.folder)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 4, 1, 28, 28, generator=generator)
    drawn = trained.generate(images, n=5, seed=1)
    assert drawn.shape == (3, 5, 1, 28, 28)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    assert torch.equal(drawn, trained.generate(images, n=5, seed=1)), "as the seed says"
    assert not torch.equal(drawn, trained.generate(images, n=5, seed=2))
    assert torch.equal(drawn, trained.sample(trained.adapt(images, seed=1), 3, 5, seed=1))
    eight_bits = trained.generate((images * 255).round().to(torch.uint8), n=5, seed=1)
    assert torch.allclose(drawn, eight_bits, atol=0.05)
    scores = trained.log_likelihood(images, images[:, :2], importance_samples=4)
    assert scores.shape == (3, 2)
    assert torch.isfinite(scores).all()


def test_load_takes_pictures(result, tmp_path):
    pages = [Image.new("L", (60, 50), 255) for _ in range(2)]
    for shift, page in enumerate(pages):
        page.paste(0, (20 + 4 * shift, 10, 26 + 4 * shift, 40))
        page.save(tmp_path / f"{shift}.png")
    trained = metagen.load(str(result.folder))
    drawn = trained.generate([pages], n=2)
    assert drawn.shape == (1, 2, 1, 28, 28)
    assert torch.equal(drawn, trained.generate([[str(tmp_path / f"{i}.png") for i in (0, 1)]], n=2))


@pytest.mark.parametrize(("images", "words"), [
    (torch.rand(3, 5, 1, 14, 14), "(3, 5, 1, 14, 14): expected (N, K, 1, 28, 28)"),
    (torch.rand(28, 28), "expected (N, K, 1, 28, 28)"),
    (7 * torch.ones(1, 1, 1, 28, 28), r"\[0, 1\]"),
    ([[torch.rand(28, 28)], []], "as many of each class"),
    ([[3]], "tensors, PIL images or paths"),
])  # fmt: skip
def test_images_that_do_not_fit(result, images, words):
    with pytest.raises(metagen.MetagenError) as error:
        metagen.load(result.folder).adapt(images)
    assert words.replace("\\", "") in str(error.value)


TWO = torch.full((2, 1, 1, 28, 28), 0.5)
LISTS = "images: expected a tensor (N, K, 1, 28, 28), or for each class a list of pictures"


@pytest.fixture(scope="module")
def loaded(result):
    """What is adapted to two classes, and the parameters."""
    trained = metagen.load(result.folder)
    return trained, trained.adapt(TWO)


@pytest.mark.parametrize(("call", "words"), [
    (lambda t, phi: t.log_likelihood(TWO, TWO[[0, 1, 1]]), "queries of 3 classes, images of 2"),
    (lambda t, phi: t.classify(TWO, TWO[[0, 1, 1]]), "queries of 3 classes, images of 2"),
    (lambda t, phi: t.classify(TWO, None), "queries: expected a tensor"),
    (lambda t, phi: t.sample(phi, 9, 1), "ways=9: phi was adapted to 2 classes"),
    (lambda t, phi: t.sample(phi, 2, 0), "n=0: expected a whole number from 1"),
    (lambda t, phi: t.sample(phi, 0, 1), "ways=0: expected a whole number from 1"),
    (lambda t, phi: t.sample(None, 2, 1), "phi: expected what adapt(images) returns"),
    (lambda t, phi: t.generate(TWO, n=2.5), "n=2.5: expected a whole number"),
    (lambda t, phi: t.generate(TWO, n="x"), "n=x: expected a whole number"),
    (lambda t, phi: t.adapt(TWO, steps=-1), "steps=-1: expected a whole number from 0"),
    (lambda t, phi: t.generate(TWO[:0]), "(0, 1, 1, 28, 28): expected one class and one image at least"),
    (lambda t, phi: t.generate(TWO[:, :0]), "(2, 0, 1, 28, 28): expected one class and one image at least"),
    (lambda t, phi: t.generate(["a.png"]), "put those of one class into a list of its own"),
    (lambda t, phi: t.generate({"a": ["a.png"]}), "list(images.values())"),
    (lambda t, phi: t.generate("a.png"), "a single picture is [['a.png']]"),
    (lambda t, phi: t.generate(None), f"{LISTS}, as in [['a1.png', 'a2.png'], "),
    (lambda t, phi: t.generate([[TWO[0, 0], TWO[0, 0, :, :9]]]), "images of one shape, not"),
])  # fmt: skip
def test_what_does_not_fit_a_trained_run(loaded, call, words):
    with pytest.raises(metagen.MetagenError) as error:
        call(*loaded)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_pictures_of_a_folder_are_read_as_the_error_says(loaded, tmp_path):
    page = Image.new("L", (60, 50), 255)
    page.paste(0, (20, 10, 26, 40))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        page.save(tmp_path / name / "1.png")
    for folder, classes in ((tmp_path, 2), (tmp_path / "a", 1)):
        with pytest.raises(metagen.MetagenError) as error:
            loaded[0].generate(folder)
        said = str(error.value).partition("not a folder: ")[2].removesuffix(" lists its pictures")
        assert loaded[0].generate(eval(said, {"Path": Path}), n=1).shape[0] == classes


def test_a_loop_and_a_trainer_of_ones_own(tmp_cwd):
    setup = metagen.build([*TINY, "learner=maml"])
    (batch,) = (next(iter(setup.data.train_dataloader())),)
    assert batch.support.x.shape == (2, 3, 5, 1, 28, 28)
    loss = setup.experiment.meta_loss(batch)
    loss.backward()
    assert all(p.grad is not None for p in setup.experiment.model.decoder.parameters())
    seen = []

    class Mine(L.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            seen.append(trainer.global_step)

    trainer = L.Trainer(
        max_steps=2, logger=False, enable_checkpointing=False, callbacks=[Mine()], limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(setup.experiment, datamodule=setup.data)
    assert seen == [1, 2]


class Line(torch.nn.Module):
    """A model of one's own: any module with a loss."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(28 * 28))

    def loss(self, shots):
        return ((shots.x.flatten(3) - self.weight) ** 2).mean()


def test_any_module_with_a_loss_is_a_model():
    setup = metagen.build([*TINY])
    learner = metagen.build([*TINY, "learner=transfer"]).experiment.learner
    experiment = metagen.Experiment(Line(), learner, lambda params: torch.optim.SGD(params, lr=1.0))
    batch = next(iter(setup.data.train_dataloader()))
    experiment.meta_loss(batch).backward()
    images = torch.cat([batch.support.x, batch.query.x], 2).flatten(0, 2).flatten(1)
    weight = experiment.model.weight
    assert weight.grad is not None
    assert torch.allclose(weight.grad, -2 * images.mean(0) / weight.numel(), atol=1e-6), "of the mean image"


PLAIN = ["learner.rule.per_tensor=false", "learner.rule.orthogonal=false"]
"""A rule that fits any network: it learns nothing for the tensors of one model."""


def test_a_rule_is_an_optimizer_of_torch(tmp_cwd):
    few = ["learner.steps=1", "learner.test_steps=1", "metric=[negative_elbo]", "trainer.max_steps=1"]
    metagen.train([*TINY, "learner=learned_optimizer_mlp", *few, *PLAIN, "hydra.run.dir=run"])
    net = torch.nn.Linear(3, 2)
    optimizer = metagen.load("run").optimizer(net.parameters())
    before = net.weight.detach().clone()
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert not torch.equal(net.weight, before)
