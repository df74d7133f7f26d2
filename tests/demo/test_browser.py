"""The page in a real browser: draw, adapt, save, upload a bad file, two visitors at once.

Needs the extra ``demo``, playwright and Chromium; without them every test is skipped with the reason, and
with METAGEN_REQUIRE_BROWSER set it fails instead.
"""

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest_plugins = ["demo.demo_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [f"--disable-{what}" for what in ("gpu", "quic", "background-networking", "component-update", "sync")]
SEVEN = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)]
CROSS = [(0.2, 0.2), (0.8, 0.8), (0.5, 0.5), (0.8, 0.2), (0.2, 0.8)]
SEEN = "count => document.querySelectorAll('.mg-seen img').length === count"
ANSWERED = """([count, runs]) => {
  const cards = [...document.querySelectorAll(".mg-card")];
  return cards.filter((card) => card.textContent.includes(`· ${count} image`)).length >= runs;
}"""
STEPPING = """() => {
  window.stepped = new Set();
  const look = () => {
    for (const curve of document.querySelectorAll(".mg-curve"))
      window.stepped.add(Number(/· (\\d) image/.exec(curve.closest(".mg-card").textContent)[1]));
  };
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true});
}"""
"""Writes down to how many images the learner that takes steps has answered."""
RUNS = ("amortized", "reptile", "in_context")


@pytest.fixture(scope="module")
def needed():
    """Skip where something is missing, and say what."""
    missing = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
    missing += [] if CHROMIUM else ["chromium"]
    if missing:
        reason = f"{', '.join(missing)} not installed: pip install '.[demo]' playwright, apt install chromium"
        assert not os.environ.get("METAGEN_REQUIRE_BROWSER"), reason
        pytest.skip(reason)


def listens_to_ctrl_c():
    """In the background of a shell, tests are started with SIGINT ignored, and so would be the server."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def address(needed, run_folders):
    """``metagen demo`` as a user starts it, and stops it with Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    runs = [str(run_folders[name]) for name in RUNS]
    code = "from metagen.cli.main import main; main()"
    command = [sys.executable, "-c", code, "demo", *runs, "--port", port]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=listens_to_ctrl_c) as server:
        line = server.stdout.readline()
        try:
            assert line.startswith(f"http://127.0.0.1:{port}"), line + server.stderr.read()
            yield line.split()[0]
        finally:
            server.send_signal(signal.SIGINT)
            try:
                out, err = server.communicate(timeout=30)
            finally:
                server.kill()
    assert server.returncode == 0, err
    assert "Traceback" not in out + err, "no visitor made the server fail"


@pytest.fixture(scope="module")
def browser(needed):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-first-run", *QUIET]
        )
        yield browser
        browser.close()


class Visitor:
    """A browser of its own, with the page open."""

    def __init__(self, browser, address):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.asked, self.errors = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("[data-listens] canvas")

    def draw(self, number, points):
        """Draw one stroke and wait until every run has answered."""
        count = len(self.seen()) + 1
        self.stroke(number, points)
        self.wait(count)

    def whole_answer(self, numbers):
        """Draw a stroke in each of the squares without waiting, then wait for the whole answer."""
        count = len(self.seen()) + len(numbers)
        for number in numbers:
            self.stroke(number, CROSS)
        self.page.wait_for_function(ANSWERED, arg=[count, 1])
        assert not self.page.evaluate(ANSWERED, [count, len(RUNS)]), "a quick learner waits for no slow one"
        self.wait(count)

    def stroke(self, number, points):
        """Draw one stroke."""
        canvas = self.page.locator("#canvas canvas").nth(number)
        canvas.hover()  # waits until it has its place
        box = canvas.bounding_box()
        path = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*path[0])
        self.page.mouse.down()
        for point in path[1:]:
            self.page.mouse.move(*point, steps=5)
        self.page.mouse.up()

    def wait(self, count):
        """Wait until every run has answered to ``count`` images."""
        self.page.wait_for_function(ANSWERED, arg=[count, len(RUNS)])
        self.page.wait_for_function(SEEN, arg=count)

    def seen(self):
        """Return the images that the learners see."""
        return [image.get_attribute("src") for image in self.page.locator(".mg-seen img").all()]

    def save(self):
        """Return the names in the saved archive, its settings and the first run's arrays."""
        with self.page.expect_download() as download:
            self.page.get_by_text("Save what is shown").click()
        with zipfile.ZipFile(download.value.path()) as file:
            arrays = np.load(io.BytesIO(file.read("0/samples.npz")))
            return file.namelist(), json.loads(file.read("settings.json")), dict(arrays)

    def upload(self, *files):
        self.page.get_by_role("tab", name="Upload").click()
        self.page.locator("#files input[type=file]").set_input_files(list(files))


def _is_upload(response):
    return response.request.method == "POST" and "/upload" in response.url


@pytest.fixture
def visitor(browser, address):
    visitor = Visitor(browser, address)
    yield visitor
    visitor.context.close()
    assert visitor.errors == []


def test_draw_adapt_and_save(visitor):
    for number in range(2):
        visitor.draw(number, SEVEN)
    page = visitor.page
    assert len(visitor.seen()) == 2
    assert page.locator(".mg-card").count() == 3
    assert page.locator(".mg-new").count() == page.locator(".mg-near").count() == 24
    assert page.locator(".mg-curve").count() == 1, "of the only learner with steps"
    assert [row.inner_text() for row in page.locator(".mg-steps th").all()] == ["step", "0", "1", "2", "5"]
    names, settings, arrays = visitor.save()
    assert len(names) == 7
    assert (settings["source"], settings["steps"]) == ("drawings", 5)
    assert [run["label"].split()[0] for run in settings["runs"]] == list(RUNS)
    assert (arrays["support"].shape, arrays["samples"].shape) == ((2, 28, 28), (8, 28, 28))


def test_the_sliders_change_what_is_shown(visitor):
    from playwright.sync_api import TimeoutError as Late

    visitor.draw(0, CROSS)
    shown = "document.querySelectorAll('.mg-new').length == 9"
    for attempt in range(3):
        # A number that is typed while the page is still being laid out may go unheard on a busy machine.
        for label, number in (("Adaptation steps", "2"), ("New images", "3")):
            field = visitor.page.get_by_label(f"number input for {label}")
            for typed in ("5", number) if attempt else (number,):
                field.fill(typed)
                visitor.page.keyboard.press("Tab")
        with suppress(Late):
            visitor.page.wait_for_function(shown, timeout=20_000)
            break
    assert visitor.page.evaluate(shown)
    visitor.page.wait_for_function("document.querySelectorAll('.mg-steps th').length == 4")


def test_who_draws_on_does_not_wait_for_the_answer_to_what_was_there_before(visitor):
    visitor.page.get_by_label("number input for Adaptation steps").fill("100")
    visitor.page.evaluate(STEPPING)
    visitor.whole_answer([0])
    visitor.whole_answer([1, 2, 3, 4])
    stepped = set(visitor.page.evaluate("[...window.stepped]"))
    assert {1, 5} <= stepped
    assert not {2, 3, 4} <= stepped, "answers to two, three and four drawings were given up"
    assert "100" in [row.inner_text() for row in visitor.page.locator(".mg-steps th").all()]
    visitor.page.wait_for_timeout(500)
    visitor.wait(5)
    assert visitor.save()[2]["support"].shape == (5, 28, 28)


def test_a_stream_that_is_closed_too_early(visitor):
    def close(route):
        body = f"data: {json.dumps({'msg': 'close_stream'})}\n\n"
        route.fulfill(body=body, content_type="text/event-stream")

    visitor.page.route("**/queue/data*", close, times=1)
    visitor.draw(0, SEVEN)
    visitor.draw(1, SEVEN)


def test_undo_and_clear(visitor):
    visitor.draw(0, SEVEN)
    visitor.draw(2, CROSS)
    assert len(visitor.seen()) == 2
    visitor.page.get_by_label("undo the last stroke of drawing 1").click()
    visitor.wait(1)
    visitor.page.get_by_text("clear all").click()
    visitor.page.wait_for_selector(".mg-note")
    assert "one to five drawings" in visitor.page.locator("#results").inner_text()
    assert visitor.page.get_by_text("Save what is shown").is_disabled()


def test_another_tab_clears_the_answer_and_drawings_come_back(visitor):
    visitor.draw(0, SEVEN)
    visitor.page.get_by_role("tab", name="Upload").click()
    visitor.page.wait_for_selector(".mg-note")
    assert "Upload one to five images" in visitor.page.locator("#results").inner_text()
    assert visitor.seen() == []
    assert visitor.page.get_by_text("Save what is shown").is_disabled()
    visitor.page.wait_for_timeout(4000)  # longer than the page waits before it asks again
    assert visitor.seen() == []
    visitor.page.get_by_role("tab", name="Draw").click()
    visitor.wait(1)


def test_a_square_is_drawn_in_by_keyboard(visitor):
    keys = visitor.page.keyboard
    for _ in range(40):
        keys.press("Tab")
        label = visitor.page.evaluate("document.activeElement.getAttribute('aria-label')")
        if label == "drawing 1":
            break
    assert label == "drawing 1"
    width = "getComputedStyle(document.activeElement).outlineWidth"
    assert visitor.page.evaluate(width) == "3px", "where the focus is can be seen"
    keys.press("Space")
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowDown"):
        for _ in range(4):
            keys.press(key)
    assert "pen down" in visitor.page.locator(".mg-said").text_content()
    keys.press("Enter")
    visitor.wait(1)
    keys.press("Backspace")
    visitor.page.wait_for_selector(".mg-note")


def test_on_a_phone_results_stand_before_the_controls_and_nothing_is_cut_off(visitor):
    visitor.page.set_viewport_size({"width": 390, "height": 844})
    visitor.draw(0, SEVEN)
    tops = [visitor.page.locator(name).bounding_box()["y"] for name in ("#sources", "#answer", "#controls")]
    assert tops == sorted(tops)
    assert visitor.page.locator(".mg-new").first.bounding_box()["width"] >= 96
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    visitor.page.set_viewport_size({"width": 1280, "height": 900})
    sources, answer, controls = (
        visitor.page.locator(name).bounding_box() for name in ("#sources", "#answer", "#controls")
    )
    assert controls["x"] > sources["x"]
    assert controls["y"] < answer["y"]


def test_a_bad_file_gets_a_message_and_changes_nothing(visitor, tmp_path):
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(tmp_path / "good.png")
    visitor.upload(tmp_path / "good.png")
    visitor.wait(1)
    seen = visitor.seen()
    (tmp_path / "bad.png").write_text("no picture")
    visitor.upload(tmp_path / "bad.png")
    visitor.page.get_by_text("bad.png is not an image of a known kind").wait_for()
    (tmp_path / "large.png").write_bytes(bytes(6 * 2**20))
    visitor.upload(tmp_path / "large.png")
    visitor.page.get_by_text(re.compile("size|large", re.I)).first.wait_for()
    many = [tmp_path / f"{k}.png" for k in range(6)]
    for path in many:
        Image.new("L", (9, 9), 255).save(path)
    visitor.upload(*many)
    visitor.page.get_by_text("6 files: choose 1 to 5 images").wait_for()
    assert visitor.seen() == seen
    assert "Traceback" not in visitor.page.content()


def test_uploads_are_shown_and_not_kept(visitor, tmp_path):
    image = Image.new("RGB", (90, 80), "white")
    ImageDraw.Draw(image).line([(20, 10), (70, 60)], "navy", 6)
    for name in ("a.png", "b.jpg"):
        image.save(tmp_path / name)
    with visitor.page.expect_response(_is_upload) as response:
        visitor.upload(tmp_path / "a.png", tmp_path / "b.jpg")
    visitor.wait(2)
    kept = [Path(path) for path in response.value.json()]
    assert len(kept) == 2
    assert not any(path.exists() for path in kept)
    assert all(path.parents[1].stat().st_mode & 0o077 == 0 for path in kept), "nobody else's to read"


def test_a_held_out_class(visitor):
    from playwright.sync_api import TimeoutError as NotThereError

    visitor.page.get_by_role("tab", name="Held-out class").click()
    option = visitor.page.get_by_role("option", name="digits: 8")
    for _ in range(20):  # the list may close again while the tab is being laid out
        visitor.page.locator("#class input").click()
        with suppress(NotThereError):
            option.click(timeout=3000)
            break
        visitor.page.keyboard.press("Escape")
    visitor.page.get_by_text("Pick images").click()
    visitor.wait(5)
    first = visitor.seen()
    assert visitor.save()[1]["source"] == "digits: 8"
    visitor.page.get_by_text("Pick images").click()
    visitor.page.wait_for_function(
        "old => [...document.querySelectorAll('.mg-seen img')].some((image, k) => image.src !== old[k])",
        arg=first,
    )


def test_two_visitors_do_not_see_each_other(browser, address):
    one, other = Visitor(browser, address), Visitor(browser, address)
    try:
        one.draw(0, SEVEN)
        assert other.seen() == []
        other.draw(0, CROSS)
        other.draw(1, CROSS)
        assert len(one.seen()) == 1
        assert len(other.seen()) == 2
        assert one.seen()[0] not in other.page.content()
        assert other.seen()[0] not in one.page.content()
        mine, theirs = one.save()[2], other.save()[2]
        assert (len(mine["support"]), len(theirs["support"])) == (1, 2)
        assert not np.array_equal(mine["support"][0], theirs["support"][0])
    finally:
        one.context.close()
        other.context.close()


def test_everything_comes_from_this_machine(visitor, address):
    visitor.draw(0, SEVEN)
    hosts = {url.split("/")[2] for url in visitor.asked if url.startswith("http")}
    assert hosts == {address.split("/")[2]}
    response = visitor.page.request.get(address)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert not re.search(r"(src|href)=\"https?://", response.text())
    assert visitor.page.request.get(f"{address}gradio_api/file=https://example.org/").status == 404
