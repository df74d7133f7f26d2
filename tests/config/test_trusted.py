"""Nothing of what a stranger sends runs: no checkpoint, no configuration, no override."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from command_line import draw, fails
from conftest import composed
from omegaconf import OmegaConf
from processes import QUICK

from metagen.cli.main import run
from metagen.config.trusted import instantiate, resolve
from metagen.errors import MetagenError
from metagen.jobs.build import build, load_checkpoint
from metagen.models.vae import VAE
from metagen.runs.reopen import run_overrides
from metagen.training.checkpoints import AtomicCheckpoints

CONF = Path(__file__).parents[2] / "conf"


class Evil:
    def __reduce__(self):
        return os.mkdir, ("taken",)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run as a stranger may send it."""
    folder = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", *QUICK, "trainer.max_steps=2", "hydra.run.dir=run"]) == 0
    return folder / "run"


@pytest.fixture
def sent(honest, tmp_cwd):
    """A copy of it to be spoilt, here."""
    shutil.copytree(honest, "run")
    draw(tmp_cwd / "mine" / "a")
    return Path("run")


WAYS = [
    ["evaluate", "run", "hydra.run.dir=new"],
    ["reproduce", "run", "hydra.run.dir=new"],
    ["generate", "run", "--images", "mine", "--out", "new"],
    ["train", "--resume", "run"],
    ["train", *QUICK, "checkpoint=run/checkpoints/best.ckpt", "hydra.run.dir=new"],
]


def test_the_marker_would_appear(tmp_cwd):
    pickle.loads(pickle.dumps(Evil()))
    assert Path("taken").is_dir()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way)[:25])
@pytest.mark.parametrize("kind", ["torch", "pickle", "inside"])
def test_a_malicious_checkpoint(kind, way, sent, capsys):
    for path in (sent / "checkpoints").iterdir():
        saved = torch.load(path, weights_only=True)
        if kind == "pickle":
            path.write_bytes(pickle.dumps(Evil()))
        else:
            torch.save(Evil() if kind == "torch" else {**saved, "callbacks": Evil()}, path)
    if way[1] == "--resume":
        os.remove("run/metrics.json")
        assert run(way) == 0, "from the beginning, since no checkpoint can be read"
    elif way[0] == "reproduce":
        assert run(way) == 0, "it reads no checkpoint"
    else:
        assert fails(way, capsys, "no readable checkpoint") == 1
    assert not Path("taken").exists()


def test_lightning_cannot_be_told_to_run_code(tmp_cwd):
    torch.save({"state_dict": Evil(), "global_step": 1}, "a.ckpt")
    for load in (
        lambda: AtomicCheckpoints().load_checkpoint("a.ckpt", weights_only=False),
        lambda: load_checkpoint(None, "a.ckpt"),
    ):
        with pytest.raises(MetagenError, match="no readable checkpoint"):
            load()
    assert not Path("taken").exists()


EVIL = {
    "system": {"_target_": "os.system", "_args_": ["mkdir taken"]},
    "through torch": {"_target_": "torch.os.system", "_args_": ["mkdir taken"]},
    "through a module": {"_target_": "torch.nn.modules.module.torch.os.mkdir", "_args_": ["taken"]},
    "through metagen": {"_target_": "metagen.cli.main.os.mkdir", "_args_": ["taken"]},
    "ours that writes": {"_target_": "metagen.files.write_text", "path": "taken", "text": ""},
    "ours that runs": {"_target_": "metagen.cli.main.run", "argv": ["train"]},
    "hub": {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "x", "source": "local"},
    "load": {"_target_": "torch.load", "f": "x", "weights_only": False},
    "extension": {"_target_": "torch.utils.cpp_extension.load_inline", "name": "x", "cpp_sources": ""},
    "process": {"_target_": "subprocess.Popen", "args": ["mkdir", "taken"]},
    "hydra": {"_target_": "hydra.utils.call", "config": {"_target_": "os.mkdir", "_args_": ["taken"]}},
    "partial": {"_target_": "os.mkdir", "_partial_": True, "path": "taken"},
    "callback": {"_target_": "lightning.pytorch.cli.LightningCLI"},
    "method": {"_target_": "metagen.data.split.Split.load", "name": "taken"},
    "a module beside the run": {"_target_": "mischief.Thing"},
}
PLACES = [
    "model",
    "model.aggregate",
    "task.augment.0",
    "optimizer",
    "trainer",
    "metrics.more",
    "judge",
    "unknown",
]


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_a_malicious_target_is_refused_in_every_place(evil, tmp_cwd, monkeypatch):
    Path("mischief.py").write_text("import os\nos.mkdir('taken')\n")
    monkeypatch.syspath_prepend(str(tmp_cwd))
    for place in PLACES:
        cfg = composed("metric=[negative_elbo]")
        OmegaConf.set_struct(cfg, False)
        if place == "task.augment.0":
            cfg.task.augment = [evil]
        else:
            OmegaConf.update(cfg, place, evil, merge=False, force_add=True)
        with pytest.raises(MetagenError, match=r"_target_|no key"):
            build(cfg)
        with pytest.raises(MetagenError, match="METAGEN_ALLOW"):
            instantiate(cfg[place.partition(".")[0]], place)
    assert not Path("taken").exists()


@pytest.mark.parametrize("way", WAYS[:4], ids=lambda way: " ".join(way)[:25])
def test_a_malicious_configuration_of_a_run(way, sent, capsys):
    """In its overrides, which are composed anew, and in what was composed, which ``reproduce`` takes."""
    evil = ["model._target_=os.mkdir", "+model.path=taken"]
    for name, text in (("overrides", evil), ("config", None)):
        path = sent / ".hydra" / f"{name}.yaml"
        saved = OmegaConf.load(path)
        if text is None:
            saved.model = {"_target_": "os.mkdir", "path": "taken"}
            OmegaConf.save(saved, path)
        else:
            OmegaConf.save(OmegaConf.create([*saved, *text]), path)
    if way[1] == "--resume":
        os.remove("run/metrics.json")
    assert fails(way, capsys, "os.mkdir", "METAGEN_ALLOW") == 1
    assert not Path("taken").exists()


FOREIGN = [
    "+hydra.callbacks={evil:{_target_:mischief.Thing}}",
    "hydra.job_logging.handlers.file={\"()\":mischief.Thing}",
    "hydra/job_logging=none",
    "+hydra.job.env_set={METAGEN_ALLOW:os}",
    "hydra.searchpath=[file:///tmp]",
    "+learner@hydra.callbacks.evil=maml",
    "learner=../../../tmp/evil",
    "learner=/tmp/evil",
    "--config-dir=/tmp",
    "-m",
]  # fmt: skip


@pytest.mark.parametrize("way", [*WAYS[:4]], ids=lambda way: " ".join(way)[:25])
def test_saved_overrides_do_not_reach_beyond_the_run(way, sent, tmp_cwd, monkeypatch, capsys):
    (tmp_cwd / "mischief.py").write_text("import os\nos.mkdir('taken')\n")
    monkeypatch.syspath_prepend(str(tmp_cwd))
    path = sent / ".hydra/overrides.yaml"
    saved = list(OmegaConf.load(path))
    OmegaConf.save(OmegaConf.create([*FOREIGN, *saved]), path)
    assert run_overrides(sent) == saved
    if way[1] == "--resume":
        os.remove("run/metrics.json")
    assert run(way) == 0
    assert not Path("taken").exists()
    assert "METAGEN_ALLOW" not in os.environ


def test_a_callback_of_hydra_is_refused_not_dropped(tmp_cwd, monkeypatch, capsys):
    (tmp_cwd / "mischief.py").write_text("import os\nos.mkdir('taken')\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_cwd))
    argv = ["train", *QUICK, FOREIGN[0], "hydra.run.dir=new"]
    assert fails(argv, capsys, "hydra.callbacks", "leave them out") == 2
    assert not Path("taken").exists()


def test_everything_in_conf_is_allowed():
    import yaml

    found = set()
    for path in CONF.rglob("*.yaml"):
        if "hydra" not in path.parts:
            text = yaml.safe_load(path.read_text())
            found |= set(named(text))
    assert len(found) > 60
    for name in found:
        assert resolve(name, "here") is not None


def named(node):
    if isinstance(node, dict):
        yield from ([node["_target_"]] if "_target_" in node else [])
        for value in node.values():
            yield from named(value)
    if isinstance(node, list):
        for value in node:
            yield from named(value)


def test_a_package_of_the_users_own(tmp_cwd, monkeypatch):
    (tmp_cwd / "mine_only.py").write_text(
        "class Net:\n    def __init__(self, width: int = 3): self.width = width\n"
    )
    monkeypatch.syspath_prepend(str(tmp_cwd))
    node = {"_target_": "mine_only.Net", "width": 5}
    with pytest.raises(MetagenError, match="METAGEN_ALLOW=mine_only"):
        instantiate(node, "model")
    monkeypatch.setenv("METAGEN_ALLOW", "other, mine_only")
    assert instantiate(node, "model").width == 5
    with pytest.raises(MetagenError, match="METAGEN_ALLOW=mine_only_too"):
        instantiate({"_target_": "mine_only_too.Net"}, "model")
    with pytest.raises(MetagenError, match="cannot be imported"):
        instantiate({"_target_": "mine_only.Nett"}, "model")


def test_what_is_checked_is_what_is_made():
    assert isinstance(instantiate(composed("model.hidden=8").model, "model"), VAE)
    assert instantiate(None) is None
