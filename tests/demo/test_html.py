"""The results as HTML: whole in itself, and nothing of a visitor's or a run's becomes markup."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from demo.demo_samples import support

from metagen.demo import html
from metagen.demo.engine import Engine

pytest_plugins = ["demo.demo_fixtures"]


@pytest.fixture(scope="module")
def engine(run_folders):
    return Engine([run_folders["reptile"], run_folders["amortized"]])


@pytest.fixture(scope="module")
def done(engine):
    *_, done = engine.adapt(support(3), 5, 8)
    return done


def test_each_sample_stands_beside_its_nearest(engine, done):
    page = html.results(engine.runners, done)
    assert page.count('class="mg-new"') == page.count('class="mg-near"') == 16
    for found in done.values():
        for gap in found.distance:
            assert f"<figcaption>{gap:.1f}</figcaption>" in page


def test_the_curve_has_a_point_for_every_step_and_a_dot_for_every_picture(engine, done):
    page = html.results(engine.runners, done)
    assert page.count("<svg") == 1, "the learner without steps has no curve"
    assert len(re.search(r'points="([^"]*)"', page)[1].split()) == 6
    assert page.count("<circle") == 4
    assert f"step 5: {done[0].losses[5]:.4g}" in page
    assert "one pass" in page


def test_what_is_not_done_says_so(engine, done):
    page = html.results(engine.runners, {1: done[1]})
    assert page.count("mg-waiting") == 1
    assert "adapting" in page


def test_nothing_is_fetched_and_nothing_becomes_markup(engine, done):
    bad = replace(done[0], label="<script>alert(1)</script>", folder='"><img src=x>')
    page = html.results(engine.runners, {0: bad, 1: done[1]}) + html.seen(support(2)) + html.note("<b>")
    assert "<script" not in page
    assert "<b>" not in page
    assert all(
        source.startswith("data:image/png;base64,") for source in re.findall(r'<img[^>]*src="([^"]*)', page)
    )
    assert "http" not in page


WEB = Path(html.__file__).with_name("web")


def test_squares_are_reached_by_keyboard_and_say_what_they_are():
    page, script = ((WEB / name).read_text() for name in ("canvas.html", "canvas.js"))
    canvas = re.search(r"<canvas[^>]*>", page)[0]
    assert 'tabindex="0"' in canvas
    assert 'aria-label="drawing {{this}}"' in canvas
    assert f'id="{re.search("aria-describedby=.([a-z-]+)", canvas)[1]}"' in page
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Enter", "Backspace", '" "'):
        assert f"{key}:" in script
    assert ":focus-visible { outline: 3px" in (WEB / "page.css").read_text()


def test_new_images_are_large_enough_for_a_phone():
    style = (WEB / "page.css").read_text()
    width = int(re.search(r"\.mg-new \{ width: (\d+)px", style)[1])
    assert 96 <= width <= (360 - 2 * 34 - 10) // 2, "two beside each other on a narrow phone"
    phone = style.partition("@media (max-width: 700px)")[2].splitlines()[0]
    assert phone.index("sources") < phone.index("answer") < phone.index("controls")


def test_a_loss_that_is_not_finite_has_no_curve(engine, done):
    broken = replace(done[0], losses=[1.0, float("nan"), *done[0].losses[2:]])
    assert "<svg" not in html.results(engine.runners, {0: broken, 1: done[1]})
