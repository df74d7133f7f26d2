"""The page: what a visitor can do, and what then happens. Only a visitor's own session holds the drawings."""

import base64
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from metagen.demo import html
from metagen.demo.adapted import Support
from metagen.demo.engine import MAX_SAMPLES, MAX_SHOTS, MAX_STEPS, Engine, SupersededError
from metagen.demo.held_out import HeldOut
from metagen.demo.inputs import from_files, from_images, from_strokes
from metagen.demo.saving import Visit, archive
from metagen.errors import MetagenError

WEB = Path(__file__).with_name("web")
SAMPLES = 8
AT_ONCE = 8
"""Events that are answered at the same time; those of one visitor supersede each other."""
HOUR = 3600
INTRODUCTION = """\
# New images of your symbol
Draw it once or up to five times. Each learner adapts to your drawings and draws new ones.
"""
EVENT: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": AT_ONCE,
    "concurrency_id": "engine",
    "trigger_mode": "multiple",
    "api_visibility": "private",
}
"""No event can be called but from the page, and none waits in the browser for the one before."""

Shown = tuple[Any, ...]
"""What an event changes: the images as seen, the results, the visit, the button that saves."""
UNCHANGED: Shown = (gr.skip(),) * 4


class Turns:
    """Which of a visitor's wishes is the latest: the answer to an older one is of no use."""

    def __init__(self) -> None:
        self._now = object()

    def take(self) -> Callable[[], bool]:
        """Begin a turn and return what tells whether it is over."""
        self._now = mine = object()
        return lambda: self._now is not mine


class Page:
    """The page of an engine.

    Args:
        engine: the runs.
        held_out: the classes that can be picked.
    """

    def __init__(self, engine: Engine, held_out: HeldOut) -> None:
        self.engine, self.held_out = engine, held_out

    def build(self) -> gr.Blocks:
        """Return the page, ready to be launched."""
        with gr.Blocks(title="metagen demo", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
            gr.Markdown(INTRODUCTION)
            visit, turns = gr.State(None, time_to_live=HOUR), gr.State(Turns())
            # The order of reading, and that on a phone; elsewhere page.css puts the controls on the right.
            with gr.Row(elem_id="page"):
                with gr.Column(elem_id="sources"):
                    sources = self._sources()
                with gr.Column(elem_id="answer"):
                    seen = gr.HTML(apply_default_css=False, elem_id="seen")
                    results = gr.HTML(html.note(html.DRAW), apply_default_css=False, elem_id="results")
                with gr.Column(elem_id="controls"):
                    steps, samples = self._numbers()
                    save = gr.Button("Save what is shown", interactive=False)
            self._connect(sources, [turns, steps, samples], [seen, results, visit, save])
            kept = gr.Textbox(visible=False)
            save.click(_saved, visit, kept, **EVENT).then(None, kept, None, js=_web("save.js"))
        return blocks

    def _numbers(self) -> tuple[gr.Slider, gr.Slider]:
        """Lay out the numbers of steps and of samples."""
        suggested = self.engine.steps
        steps = gr.Slider(
            0, MAX_STEPS, suggested or 0, step=1, label="Adaptation steps", visible=suggested is not None
        )
        return steps, gr.Slider(1, MAX_SAMPLES, SAMPLES, step=1, label="New images")

    def _sources(self) -> dict[str, Any]:
        """Lay out the three ways to give images."""
        parts: dict[str, Any] = {}
        with gr.Tabs():
            with gr.Tab("Draw") as parts["draw"]:
                parts["canvas"] = gr.HTML(
                    html_template=_web("canvas.html"), js_on_load=_web("canvas.js"), elem_id="canvas",
                    apply_default_css=False, tiles=list(range(1, MAX_SHOTS + 1)),
                )  # fmt: skip
            with gr.Tab("Upload") as parts["upload"]:
                parts["files"] = gr.File(
                    label=f"1 to {MAX_SHOTS} images of one symbol: PNG, JPEG, BMP or WebP, of any size",
                    file_count="multiple", height=160, elem_id="files",
                )  # fmt: skip
            with gr.Tab("Held-out class") as parts["held_out"]:
                names = list(self.held_out.classes)
                for line in self.held_out.missing:
                    gr.Markdown(f"No classes of {line}")
                parts["name"] = gr.Dropdown(names, label="Class left out of the training", elem_id="class")
                parts["shots"] = gr.Slider(1, MAX_SHOTS, MAX_SHOTS, step=1, label="Images of it")
                parts["pick"] = gr.Button("Pick images", interactive=bool(names))
        return parts

    def _connect(self, sources: dict[str, Any], how: list[Any], shown: list[Any]) -> None:
        """Say what happens on each event; ``how`` are the visitor's turns, the steps and the samples."""
        canvas, files, (_, *numbers), visit = sources["canvas"], sources["files"], how, shown[2]
        canvas.change(self._drawn, [canvas, *how], shown, **EVENT)
        files.upload(self._uploaded, [files, *how], [*shown, files], **EVENT)
        picked = [sources["name"], sources["shots"], *how]
        sources["pick"].click(self._picked, picked, shown, **EVENT)
        # What another tab answered is no answer to this one; drawings are still in their squares.
        sources["draw"].select(self._drawn, [canvas, *how], shown, **EVENT)
        for tab, text in (("upload", html.UPLOAD), ("held_out", html.PICK)):
            sources[tab].select(partial(_nothing_yet, text), how[0], shown, **EVENT)
        for slider in numbers:
            slider.change(self._again, [visit, *how], shown, **EVENT)

    def _drawn(self, text: str | None, *how: Any) -> Iterator[Shown]:
        yield from self._answer(lambda: from_strokes(text, self.engine.forms), "drawings", *how)

    def _uploaded(self, files: list[str] | None, *how: Any) -> Iterator[Shown]:
        """Answer an upload; the files are read once and deleted before anything is shown of them."""
        paths = [Path(file) for file in files or []]

        def support() -> Support:
            try:
                return from_files(paths, self.engine.forms)
            finally:
                for path in paths:
                    with suppress(OSError):
                        path.unlink()

        for answer in self._answer(support, "uploads", *how):
            yield *answer, None

    def _picked(self, name: str | None, shots: float, *how: Any) -> Iterator[Shown]:
        def support() -> Support:
            images = self.held_out.draw(name or "", int(shots), secrets.randbelow(2**31))
            return from_images(images, self.engine.forms)

        yield from self._answer(support, str(name), *how)

    def _again(self, visit: Visit | None, *how: Any) -> Iterator[Shown]:
        if visit is None:
            yield UNCHANGED
        else:
            yield from self._answer(lambda: visit.support, visit.source, *how)

    def _answer(
        self, read: Callable[[], Support], source: str, turns: Turns, steps: float, n: float
    ) -> Iterator[Shown]:
        """Yield the page after each run that is done; bad input leaves it as it was, with a message."""
        over = turns.take()
        try:
            support = read()
            if not support:
                yield _empty(html.DRAW)
                return
            # sliders, too, act on these images from now on, and what is shown belongs to them no more
            visit = Visit(support, source, int(steps))
            yield html.seen(support), gr.skip(), visit, gr.Button(interactive=False)
            runners, done = self.engine.runners, {}
            for done in self.engine.adapt(support, int(steps), int(n), over):
                if len(done) < len(runners):
                    yield gr.skip(), html.results(runners, done), gr.skip(), gr.skip()
            if over():
                raise SupersededError
            visit = Visit(support, source, int(steps), [done[index] for index in range(len(runners))])
            yield gr.skip(), html.results(runners, done), visit, gr.Button(interactive=True)
        except SupersededError:
            # the last thing yielded is sent again at the end, when a newer answer may be there already
            yield UNCHANGED
        except MetagenError as error:
            gr.Warning(str(error), duration=20)
            yield UNCHANGED


def _empty(invitation: str) -> Shown:
    """Return the page without an answer."""
    return "", html.note(invitation), None, gr.Button(interactive=False)


def _nothing_yet(invitation: str, turns: Turns) -> Shown:
    """Clear the answer to what another tab gave; one that is still under way is given up."""
    turns.take()
    return _empty(invitation)


def _saved(visit: Visit | None) -> str:
    """Return the archive of what is shown, as base64, or nothing where nothing is."""
    return base64.b64encode(archive(visit)).decode() if visit is not None and visit.results else ""


def _web(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")
