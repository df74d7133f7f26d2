"""``metagen export``: a folder to hand on, which every command takes in place of a run."""

import hashlib
import json
import os
import re
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from command_line import draw, fails
from PIL import Image
from processes import QUICK, trained_run

import metagen
from metagen.cli.main import run
from metagen.errors import MetagenError
from metagen.jobs import onnx_graph
from metagen.jobs.build import start_from
from metagen.runs import places
from metagen.training.checkpoints import DamagedError, read_checkpoint

GUIDE = Path(__file__).parents[2] / "docs/howto/export.md"
TINY = [*QUICK, "trainer.max_steps=1", "trainer.val_check_interval=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, and exports of it in 16 and in 32 bits, beside each other."""
    folder = trained_run(tmp_path_factory.mktemp("export"), TINY).parent
    assert run(["export", str(folder / "run"), "--to", str(folder / "half")]) == 0
    assert run(["export", str(folder / "run"), "--to", str(folder / "full"), "--float32"]) == 0
    return folder


def support():
    return torch.rand(2, 5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_the_exported_model_draws_what_the_run_draws(made):
    drawn = {name: metagen.load(made / name).generate(support(), n=3) for name in ("run", "half", "full")}
    assert torch.equal(drawn["full"], drawn["run"])
    torch.testing.assert_close(drawn["half"], drawn["run"], atol=2e-3, rtol=0)
    sizes = {name: (made / name / "model.safetensors").stat().st_size for name in ("half", "full")}
    assert 0.45 < sizes["half"] / sizes["full"] < 0.62


def test_what_only_training_needs_stays_behind_and_may_be_missing_from_a_start(tmp_path):
    small = [
        "model.hidden=8",
        "model.features=8",
        "model.points=4",
        "model.refine_steps=1",
        "model.pen=false",
    ]
    still = ["learner=in_context", "learner.steps=0", "learner.test_steps=0", "metric=[diversity]"]
    words = [*TINY, "model=deformation", *still, *small, "task.shots=2"]
    folder = trained_run(tmp_path, words).parent
    assert run(["export", str(folder / "run"), "--to", str(tmp_path / "out"), "--float32"]) == 0
    left = read_checkpoint(tmp_path / "out/model.safetensors")["state_dict"]
    whole = read_checkpoint(folder / "run/checkpoints/best.ckpt")["state_dict"]
    assert {name for name in whole if name not in left} == {n for n in whole if n.startswith("model.guess.")}
    images = support()[:, :2]
    drawn = [metagen.load(path).generate(images, n=3) for path in (folder / "run", tmp_path / "out")]
    assert torch.equal(*drawn)
    start_from(metagen.build(words).experiment, tmp_path / "out/model.safetensors")


def test_the_folder_names_nothing_of_this_machine_and_holds_a_card(made):
    files = [path for path in (made / "half").rglob("*") if path.is_file()]
    assert {str(path.relative_to(made / "half")) for path in files} == {
        "model.safetensors", "README.md", ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml",
    }  # fmt: skip
    for path in files:
        assert str(made).encode() not in path.read_bytes(), path
        assert os.path.expanduser("~").encode() not in path.read_bytes(), path
    card = (made / "half/README.md").read_text()
    assert "| learner | meta_sgd |" in card
    assert "| negative_elbo | " in card
    assert "metagen train task.episodes=2" in card
    assert "after 1 training steps" in card
    assert card.startswith("---\nlibrary_name: metagen\n")


def test_the_commands_take_it_as_a_run(made, tmp_cwd, capsys):
    for name in ("one", "two"):
        draw(tmp_cwd / "mine" / name)
    exported = str(made / "full")
    assert run(["generate", exported, "--images", "mine", "--n", "2", "--out", "new"]) == 0
    assert run(["evaluate", exported, "hydra.run.dir=again"]) == 0
    record, before = (json.loads(Path(p, "metrics.json").read_text()) for p in ("again", made / "run"))
    assert record["per_episode"] == before["per_episode"]
    start = f"checkpoint={exported}/model.safetensors"
    assert run(["train", *TINY, start, "hydra.run.dir=more"]) == 0
    assert fails(["export", exported, "--to", exported], capsys) == 1
    assert fails(["export", "nowhere", "--to", "x"], capsys, "no folder nowhere") == 1
    assert not Path("x").exists()


def test_an_export_may_be_written_anew_and_handed_on_with_its_figures(made, tmp_cwd, capsys):
    export = ["export", str(made / "run"), "--to", "new"]
    assert run([*export, "--float32"]) == 0
    large = Path("new/model.safetensors").stat().st_size
    assert fails(export, capsys, "new exists and is not empty", "--force") == 1
    assert run([*export, "--force"]) == 0
    assert Path("new/model.safetensors").stat().st_size < large
    assert fails(["export", "new", "--to", str(made / "run"), "--force"], capsys, "folder of a run") == 1
    assert run(["export", "new", "--to", "again"]) == 0
    cards = [Path(name, "README.md").read_text(encoding="utf-8") for name in ("new", "again")]
    assert "| metric | mean |" in cards[0]
    assert cards[1] == cards[0]
    assert "None" not in cards[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=1", "--seed"),
        ("samples=3", "--n"),
        ("task.ways=2", "folders"),
        ("task.episodes=2", "of a test"),
    ],
)
def test_overrides_that_change_nothing_are_refused(made, tmp_cwd, capsys, override, words):
    draw(tmp_cwd / "mine/one")
    given = ["--images", "mine", override]
    assert fails(["generate", str(made / "run"), *given], capsys, f"{override} changes nothing", words) == 2
    assert fails(["export", str(made / "run"), "--onnx", "a.onnx", *given], capsys, "changes nothing") == 2


def test_an_adapted_run_becomes_a_file_that_the_guide_draws_from(made, tmp_cwd, capsys):
    import onnxruntime

    for name in ("one", "two"):
        draw(tmp_cwd / "mine" / name)
    export = ["export", str(made / "run"), "--onnx", "mine.onnx", "--images", "mine"]
    assert run([*export, "learner.test_steps=2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mine\.onnx: .* draws 2 classes from y, normal_0; .* by \de-\d\d at most", line)
    said = onnxruntime.InferenceSession("mine.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == ["one", "two"]
    assert json.loads(said["noise"]) == {"normal_0": {"kind": "standard normal", "shape": ["batch", 32]}}
    assert (said["size"], said["channels"], said["range"]) == ("28", "1", "[0, 1]")
    (block,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(block, str(GUIDE), "exec"), {})
    for number in range(16):
        assert Image.open(f"{number}.png").size == (28, 28)
    before = Path("mine.onnx").read_bytes()
    assert fails(export, capsys, "mine.onnx exists", "--force") == 1
    assert Path("mine.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--onnx", "mine.txt", "--images", "mine"], "ends in .onnx"),
        (["--onnx", "mine.onnx"], "--onnx needs --images DIR"),
        (["--onnx", "mine.onnx", "--to", "folder"], "not allowed with argument"),
        ([], "one of the arguments --to --onnx is required"),
        (["--to", "folder", "--images", "mine"], "go with --onnx FILE"),
        (["--to", "folder", "--seed", "0"], "go with --onnx FILE"),
        (["--to", "folder", "learner.test_steps=2"], "go with --onnx FILE"),
        (["--onnx", "mine.onnx", "--images", "mine", "--float32"], "--float32 goes with --to"),
        (["--onnx", "mine.onnx", "--images", "mine", "--seed", "-1"], "--seed -1"),
        (["--onnx", "mine.onnx", "--images", "nothing"], "there is no folder nothing"),
        (["--onnx", "mine/one/mine.onnx", "--images", "mine"], "lies in --images mine"),
    ],
)
def test_what_cannot_be_a_file_is_refused_and_leaves_none(made, tmp_cwd, capsys, argv, words):
    draw(tmp_cwd / "mine/one")
    there = {*tmp_cwd.rglob("*")}
    assert fails(["export", str(made / "run"), *argv], capsys, words) in (1, 2)
    assert {*tmp_cwd.rglob("*")} == there


def test_the_extra_is_named_where_it_is_missing(made, tmp_cwd, capsys, monkeypatch):
    draw(tmp_cwd / "mine/one")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    argv = ["export", str(made / "run"), "--onnx", "mine.onnx", "--images", "mine"]
    assert fails(argv, capsys, "--onnx needs onnxruntime: pip install 'metagen-images[onnx]'") == 1
    assert not Path("mine.onnx").exists()


def test_a_model_that_is_no_graph_leaves_no_file(made, tmp_cwd, capsys, monkeypatch):
    draw(tmp_cwd / "mine/one")
    monkeypatch.setattr(onnx_graph, "MOST", 0)
    argv = ["export", str(made / "run"), "--onnx", "new/mine.onnx", "--images", "mine"]
    assert fails(argv, capsys, "VAE draws an image in", "use metagen generate") == 1
    assert not Path("new").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "text"])
def test_damaged_weights_are_refused_in_one_line(made, tmp_path, damage):
    from safetensors.torch import save

    whole = (made / "half/model.safetensors").read_bytes()
    bytes_of = {
        "cut": whole[:-7],
        "empty": b"",
        "other": save({"x": torch.ones(1)}),
        "text": b"no weights" * 9,
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes_of[damage])
    with pytest.raises(
        DamagedError, match=r"^\S+ is no readable checkpoint .*: fetch it again, or export the run anew$"
    ):
        read_checkpoint(path)


def test_a_large_number_keeps_its_32_bits(tmp_path):
    from metagen.training.weights import packed, unpacked

    state = {"large": torch.tensor([1e5, 1.0]), "count": torch.tensor([3]), "small": torch.tensor([0.1])}
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed({"state_dict": state, "global_step": 7}))
    found = unpacked(path)
    assert found["global_step"] == 7
    assert found["state_dict"]["large"].tolist() == [1e5, 1.0]
    assert found["state_dict"]["count"].dtype == torch.int64
    assert found["state_dict"]["small"].item() == pytest.approx(0.1, rel=1e-3)


def test_what_ships_is_found_by_its_name_unless_a_folder_has_it(made, tmp_cwd, monkeypatch):
    monkeypatch.setattr(places, "SHIPPED", made)
    assert metagen.load("pretrained/half").folder == made / "half"
    with pytest.raises(
        MetagenError, match=r"no model pretrained/haf ships with metagen; did you mean 'half'"
    ):
        metagen.load("pretrained/haf")
    Path("pretrained/half").mkdir(parents=True)
    assert places.located("pretrained/half") == Path("pretrained/half")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for: the list of a repository's files, and the files."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, folder, *args):
        self.folder = folder
        super().__init__(*args)

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, whole):
        files = {str(p.relative_to(self.folder)): p for p in self.folder.rglob("*") if p.is_file()}
        if self.path.startswith("/api/models/me/mine/tree/"):
            listed = [
                {"type": "file", "path": n, "oid": n, "size": p.stat().st_size} for n, p in files.items()
            ]
            return self.send(listed, whole)
        if self.path.startswith("/api/models/me/mine"):
            listed = [{"rfilename": name} for name in files]
            return self.send({"id": "me/mine", "sha": self.COMMIT, "siblings": listed}, whole)
        name = self.path.partition("?")[0].rpartition(f"{self.COMMIT}/")[2]
        if "/me/mine/resolve/" not in self.path or name not in files:
            return self.send_error(404)
        return self.send(files[name].read_bytes(), whole)

    def send(self, body, whole):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.COMMIT)
        self.end_headers()
        if whole:
            self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


def test_a_repository_of_the_hub_is_downloaded(made, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    import huggingface_hub.constants as constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, made / "full"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    template = here + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    try:
        folder = places.located(Path("hf://me/mine"))
        with pytest.raises(MetagenError, match="no hf://me/yours"):
            places.located("hf://me/yours")
    finally:
        server.shutdown()
    assert torch.equal(
        metagen.load(folder).generate(support(), n=2), metagen.load(made / "run").generate(support(), n=2)
    )
