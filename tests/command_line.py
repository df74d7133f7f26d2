"""What tests of commands share: a command that must fail, and pictures to give it."""

import numpy as np
from PIL import Image

from metagen.cli.main import run


def draw(path, k=2, size=40):
    path.mkdir(parents=True)
    for i in range(k):
        page = np.full((size, size), 255, np.uint8)
        page[8:32, 10 + 5 * i : 14 + 5 * i] = 0
        Image.fromarray(page).save(path / f"{i}.png")


def fails(argv, capsys, *words):
    """Run, expect one line on stderr with these words, return the exit code."""
    capsys.readouterr()
    code = run(argv)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("metagen: error: ")
    for word in words:
        assert word in lines[0], lines[0]
    return code
