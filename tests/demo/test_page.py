"""What happens to a visitor's files, without a browser; needs the extra ``demo``."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="not installed: pip install '.[demo]'")

from metagen.data.form import Form
from metagen.demo import html
from metagen.demo.page import UNCHANGED, Page, Turns, _nothing_yet


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


def test_another_tab_clears_the_answer_and_gives_up_one_under_way(page, files):
    turns = Turns()
    over = turns.take()
    seen, results, visit, save = _nothing_yet(html.UPLOAD, turns)
    assert (seen, visit, save.interactive) == ("", None, False)
    assert html.UPLOAD in results
    assert over()


def test_every_tab_changes_what_is_shown(page):
    events = [target for fn in page.build().fns.values() for target in fn.targets]
    assert sum(kind == "select" for _, kind in events) == 3


def test_refused_uploads_are_gone_too(page, files):
    files[1].write_text("no picture")
    with pytest.warns(UserWarning, match=r"1\.png is not an image"):
        answers = list(page._uploaded([str(path) for path in files], Turns(), 0, 1))
    assert [answer[:4] for answer in answers] == [UNCHANGED]
    assert not any(path.exists() for path in files)
