"""Every command of the README: it composes, and its make targets exist."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import composed
from omegaconf import OmegaConf

from metagen import cli
from metagen.schema import check

ROOT = Path(__file__).parents[1]
COMMANDS = [
    shlex.split(line, comments=True)
    for line in (ROOT / "README.md").read_text().splitlines()
    if re.match(r"    (metagen|make) ", line)
]


def test_there_are_commands():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_of_the_readme(words):
    program, command, *rest = words
    if program == "make":
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.M)
        return
    assert f"metagen {command} " in cli.USAGE
    overrides = [w for w in rest if "=" in w and not w.startswith("-")]
    choices = [o.split("=")[1].split(",") if "[" not in o else [o.split("=", 1)[1]] for o in overrides]
    for number in range(max(map(len, choices), default=1)):
        picked = [
            f"{o.split('=')[0]}={values[min(number, len(values) - 1)]}"
            for o, values in zip(overrides, choices, strict=True)
        ]
        check(OmegaConf.to_container(composed(*picked), resolve=True, throw_on_missing=True))
