"""A run in colour from end to end: train, judge, measure in nats and bits, draw, generate, and the page."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import metagen
from metagen.cli.main import run
from metagen.data.form import Form
from metagen.demo.engine import Engine
from metagen.demo.saving import Visit, archive
from metagen.errors import MetagenError

COLOURS = ["red", "lime", "blue", "cyan", "yellow", "magenta", "white", "orange"]
TINY = [
    "task.ways=2", "task.shots=2", "task.queries=2", "task.test_queries=4", "task.batch=1", "task.episodes=2",
    "task.val_episodes=0", "samples=4", "trainer.max_steps=2", "trainer.val_check_interval=2",
    "trainer.enable_progress_bar=false", "judge.epochs=1", "judge.min_steps=1", "+judge.model.hidden=8",
]  # fmt: skip
TRANSFORMER = ["model=pixel_transformer", "learner=in_context"]
SMALL = ["model.maps=2", "model.features=4", "model.latent=2", "model.channels=4", "model.hidden=8"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight classes of six coloured images, of a size of their own each."""
    folder = tmp_path_factory.mktemp("colour")
    for row, colour in enumerate(COLOURS):
        (folder / "data" / colour).mkdir(parents=True)
        for k in range(6):
            image = Image.new("RGB", (20 + row, 24), "black")
            image.paste(colour, (4, 4, 12 + k, 18))
            image.save(folder / "data" / colour / f"{k}.png")
    split = {"train": COLOURS[:4], "val": [], "test": COLOURS[4:]}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


@pytest.fixture(scope="module")
def trained(root):
    """A run on 16 x 16 pixels in colour, with everything measured that can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAGEN_CACHE", str(root / "cache"))
        metrics = "recognised,bits_per_dimension,negative_elbo,coverage,memorisation,diversity,fid,cas"
        words = [
            "train", "data=folder", f"data.root={root / 'data'}", f"data.split={root / 'split.json'}",
            "data.size=16", f"metric=[{metrics}]", "learner=amortized", "likelihood=context",
            "likelihood.contexts=[0,2]", "likelihood.importance_samples=2", f"hydra.run.dir={root / 'run'}",
        ]  # fmt: skip
        assert run([*words, *TINY, *SMALL]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def record(trained):
    return json.loads((trained / "metrics.json").read_text())


def test_the_record_names_the_likelihood_and_says_bits_per_dimension(record):
    assert (record["pixels"], record["likelihood"]["pixels"]) == ("discretised logistic",) * 2
    nats, bits = (record["metrics"][name]["mean"] for name in ("negative_elbo", "bits_per_dimension"))
    assert bits == pytest.approx(nats / (3 * 16 * 16 * math.log(2)))
    assert record["units"]["bits_per_dimension"] == "bits"
    for row in record["likelihood"]["contexts"]:
        assert row["bits_per_dimension"] == pytest.approx(row["mean"] / (768 * math.log(2)))


def test_every_metric_is_measured_in_colour(record):
    assert 0 <= record["judge"] <= 100
    measured = {"recognised", "memorisation", "diversity", "fid", "cas"}
    assert all(math.isfinite(record["metrics"][name]["mean"]) for name in measured)


@pytest.mark.parametrize("name", ["samples.npz", "samples.png"])
def test_a_class_named_like_a_file_of_the_output_is_refused(name, trained, tmp_path, capsys):
    for each in (name, "b"):
        (tmp_path / "pics" / each).mkdir(parents=True)
        Image.new("RGB", (20, 20), "red").save(tmp_path / "pics" / each / "1.png")
    words = ["generate", str(trained), "--images", str(tmp_path / "pics"), "--out", str(tmp_path / "new")]
    assert run(words) == 1
    assert f"class folder {tmp_path / 'pics' / name} is named like a file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_pictures_and_arrays_keep_their_colours(trained):
    with np.load(trained / "samples.npz") as arrays:
        assert arrays["support"].shape == (2, 2, 16, 16, 3)
        assert arrays["samples"].shape == (2, 4, 16, 16, 3)
        colour = arrays["support"][0, 0, 8, 5].tolist()
    page = np.asarray(Image.open(trained / "samples.png").convert("RGB"))
    assert (page == colour).all(-1).any()


def test_generate_draws_in_colour(trained, root):
    out = ["--images", str(root / "data"), "--out", str(root / "new"), "--n", "3"]
    assert run(["generate", str(trained), *out]) == 0
    with np.load(root / "new" / "samples.npz") as arrays:
        assert arrays["samples"].shape == (8, 3, 16, 16, 3)
        assert arrays["support"][list(arrays["classes"]).index("red"), 0, 8, 6].tolist() == [255, 0, 0]
    assert Image.open(root / "new" / "red" / "0000.png").mode == "RGB"


def test_python_takes_colours_in_every_form(trained, root):
    run_ = metagen.load(trained)
    assert run_.form == Form(16, 3, ink=False)
    paths = [[root / "data" / name / "0.png"] for name in ("red", "blue")]
    x = run_.shots(paths).x
    assert x.shape == (2, 1, 3, 16, 16)
    assert x[0, 0, :, 8, 6].tolist() == [1, 0, 0]
    levels = (x * 255).round().byte()
    assert run_.shots(levels).x.equal(x)
    assert run_.shots(levels.movedim(2, -1).numpy()).x.equal(x)
    assert run_.shots([[one] for one in levels.movedim(2, -1)[:, 0].numpy()]).x.equal(x)
    assert run_.generate(x, n=2).shape == (2, 2, 3, 16, 16)
    assert run_.log_likelihood(x, x, importance_samples=2).shape == (2, 1)
    with pytest.raises(MetagenError, match=r"expected \(N, K, 3, 16, 16\)"):
        run_.shots(x[:, :, :1])


def test_the_page_adapts_to_colours_and_saves_them(trained, root):
    engine = Engine([trained])
    engine.warm_up(2)
    (form,) = engine.forms
    support = {form: np.stack([form.read(root / "data" / "red" / "1.png")])}
    *_, done = engine.adapt(support, 0, 3)
    assert done[0].samples.shape == (3, 16, 16, 3)
    assert archive(Visit(support, "uploads", 0, [done[0]]))


@pytest.mark.parametrize(("words", "reason"), [
    ([*TRANSFORMER], "draws in black and white: set data.channels=1"),
    ([*TRANSFORMER, "data.channels=1", "data.size=64"], "set data.size=32"),
    (["model=vae", "data.size=30"], "a multiple of 4"),
    (["model=conv4", "task=classify", "learner=maml", "data.size=12"], "model.size=12: expected"),
    (["model=vae", "model.colours=1"], "data.channels=3, but VAE takes images of 1"),
])  # fmt: skip
def test_what_a_model_cannot_take_is_refused_before_the_data_are_read(words, reason, tmp_path, capsys):
    folder = f"data.root={tmp_path / 'nowhere'}"
    assert run(["train", "data=folder", folder, *words, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
