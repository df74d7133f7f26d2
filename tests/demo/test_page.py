"""What happens to a visitor's files, without a browser; needs the extra ``demo``."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="not installed: pip install '.[demo]'")

from metagen.data.form import Form
from metagen.demo.page import UNCHANGED, Page, Turns


@pytest.fixture
def page():
    """A page without runs."""
    engine = SimpleNamespace(forms=[Form(28)], runners=[], steps=None, adapt=lambda *_: iter([{}]))
    return Page(engine, SimpleNamespace(classes={}, missing=[]))


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(path)
    return paths


def test_uploads_are_gone_before_the_first_answer(page, files):
    answers = page._uploaded([str(path) for path in files], Turns(), 0, 1)
    first = next(answers)
    assert first[0].count("<img") == 3
    assert not any(path.exists() for path in files)
    answers.close()


def test_refused_uploads_are_gone_too(page, files):
    files[1].write_text("no picture")
    with pytest.warns(UserWarning, match=r"1\.png is not an image"):
        answers = list(page._uploaded([str(path) for path in files], Turns(), 0, 1))
    assert [answer[:4] for answer in answers] == [UNCHANGED]
    assert not any(path.exists() for path in files)
