"""What the tests of README and guide share: their commands, and their examples put where they belong."""

import importlib
import re
import shlex
from pathlib import Path

from conftest import composed
from omegaconf import OmegaConf

from metagen.cli import main as cli
from metagen.config.schema import check
from metagen.runs.places import located

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs"
READMES = sorted(ROOT.glob("README*.md"))
PAGES = [
    p for p in sorted(GUIDE.rglob("*.md")) if not {"_build", "generated"} & {*p.relative_to(GUIDE).parts}
]
EXAMPLE = re.compile(
    r"`(src/metagen/[\w/]+\.py|conf/[\w/]+\.yaml)`[^`\n]*\n\n```(?:python|yaml)\n(.*?)```", re.S
)


def commands(path):
    """Every line of every block of shell commands."""
    blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def examples(path):
    """The whole files that a page shows, by their path in the repository."""
    return dict(EXAMPLE.findall(path.read_text()))


def put(files, folder, monkeypatch):
    """Write examples to ``folder`` and let Python and Hydra find them; return the override that does."""
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if target.suffix == ".py":
            package = importlib.import_module(".".join(Path(name).parts[1:-1]))
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(target.parent)])
    (folder / "conf").mkdir(exist_ok=True)
    return f"hydra.searchpath=[file://{folder / 'conf'}]"


def trained(path):
    """The overrides of the first run that a page trains, to which its later commands belong."""
    lines = (shlex.split(line, comments=True) for line in commands(path))
    found = next(
        (words[2:] for words in lines if words[:2] == ["metagen", "train"] and "-m" not in words), []
    )
    return [word for word in found if "=" in word]


def assert_runs(line, found, before=()):
    """A command composes, fits its constructors, and its options are those of the program.

    Args:
        line: the command.
        found: the override by which Hydra finds the page's own files.
        before: overrides of the run that it is about, if it is about one.
    """
    program, command, *words = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{command}:.*## ", (ROOT / "Makefile").read_text(), re.M), "no such target"
        return
    assert program == "metagen", "commands other than make and metagen belong into blocks of another kind"
    assert f"metagen {command} " in cli.USAGE
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    for picked in zipped(overrides):
        cfg = composed(*(before if command in ("evaluate", "reproduce", "generate") else ()), *picked, found)
        check(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    if command == "cache":
        # Of an empty cache, not of the developer's.
        named = any(not word.startswith("-") for word in words)
        Path("empty").mkdir()
        assert cli.run([command, *words, "--cache", "empty"]) == int(named)
    elif command != "train" or "--resume" in words:
        # Its folders are not there: that, and nothing else, is what it must say.
        assert cli.run([command, *map(absent, words)]) == 1


def absent(word):
    """A folder that is not there in place of a model that ships, of which the page of ``demo`` would open."""
    if not word.startswith("pretrained/"):
        return word
    assert located(word).is_dir()
    return "outputs/not_here"


def zipped(overrides):
    """The sweep's values side by side: each occurs at least once."""
    values = [sweep(text.partition("=")[2]) for text in overrides]
    for number in range(max(map(len, values), default=1)):
        yield [
            f"{o.partition('=')[0]}={v[min(number, len(v) - 1)]}"
            for o, v in zip(overrides, values, strict=True)
        ]


def sweep(value):
    return [value] if value.startswith(("[", "{", "'")) else value.split(",")
