"""Results as HTML: everything is inside of it, so that no file lies on the server for others to find."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from metagen.demo.adapted import Adapted, Support
from metagen.demo.engine import Runner

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 120, 42, 8, 8, 20

DRAW = "Draw a symbol in one of the squares: one to five drawings of the same symbol."
UPLOAD = "Upload one to five images of the same symbol."
PICK = "Choose a class that the training left out, and take images of it."
"""What to do, where there are no results yet."""


def note(text: str) -> str:
    """Return a line that stands in place of results."""
    return f'<p class="mg-note">{escape(text)}</p>'


def results(runners: Sequence[Runner], done: Mapping[int, Adapted]) -> str:
    """Return one card a run, side by side; those that are not ``done`` say that they are at work."""
    cards = [
        _card(done[index]) if index in done else _waiting(runner) for index, runner in enumerate(runners)
    ]
    return f'<div class="mg-cards">{"".join(cards)}</div>'


def seen(support: Support) -> str:
    """Return the support images as the learners see them, in the smallest of their forms."""
    images = support[min(support)]
    tiles = "".join(_image(image, f"image {k + 1} as the learners see it") for k, image in enumerate(images))
    return f'<div class="mg-seen"><span>What the learners see</span>{tiles}</div>'


def _waiting(runner: Runner) -> str:
    return f'<section class="mg-card mg-waiting"><h3>{escape(runner.label)}</h3><p>adapting …</p></section>'


def _card(found: Adapted) -> str:
    count = f"{len(found.support)} image{'s'[: len(found.support) > 1]}"
    where = f"{escape(found.folder)} · {count} · {found.seconds:.2f} s"
    title = f'<h3>{escape(found.label)}</h3><p class="mg-run">{where}</p>'
    return f'<section class="mg-card">{title}{_samples(found)}{_adaptation(found)}</section>'


def _samples(found: Adapted) -> str:
    """Each sample with the support image that is nearest to it, and how far that is."""
    pairs = "".join(
        f'<figure title="the nearest is image {k + 1}">{_image(sample, "a new image", "mg-new")}'
        f"{_image(found.support[k], f'the nearest image of yours, {k + 1}', 'mg-near')}"
        f"<figcaption>{gap:.1f}</figcaption></figure>"
        for sample, k, gap in zip(found.samples, found.nearest.tolist(), found.distance, strict=True)
    )
    reference = f"; yours are {found.apart:.1f} apart" if found.apart is not None else ""
    return (
        f'<h4>New images beside the nearest of yours</h4><div class="mg-pairs">{pairs}</div>'
        f'<p class="mg-small">Distance between the two over their pixels, 0 for a copy: '
        f"{found.distance.mean():.1f} on average{reference}.</p>"
    )


def _adaptation(found: Adapted) -> str:
    """The curve of the loss and the pictures at some of its points."""
    if not found.steps:
        text = "This learner reads the images in one pass and takes no steps."
        if found.takes_steps:
            text = "No step was taken: this is where the learner starts."
        return f'<h4>Adaptation</h4><p class="mg-small">{text}</p>'
    rows = "".join(
        f"<tr><th>{point.step}</th><td>{_loss(found, point.step)}</td><td>"
        f"{''.join(_image(sample, f'after {point.step} steps') for sample in point.samples)}</td></tr>"
        for point in found.points
    )
    head = "<tr><th>step</th><td>loss</td><td>the same noise at every step</td></tr>"
    return f'<h4>Adaptation step by step</h4>{_curve(found)}<table class="mg-steps">{head}{rows}</table>'


def _loss(found: Adapted, step: int) -> str:
    return f"{found.losses[step]:.4g}" if found.losses else ""


def _curve(found: Adapted) -> str:
    """Return the loss over the steps as SVG, with a dot where pictures are shown."""
    losses = np.asarray(found.losses)
    if not len(losses) or not np.isfinite(losses).all():
        return '<p class="mg-small">The loss of this model has no meaning as a number.</p>'
    low, high = float(losses.min()), float(losses.max())
    span = high - low or 1.0
    x = LEFT + np.arange(len(losses)) / max(len(losses) - 1, 1) * (WIDTH - LEFT - RIGHT)
    y = TOP + (high - losses) / span * (HEIGHT - TOP - BOTTOM)
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    dots = "".join(
        f'<circle cx="{x[p.step]:.1f}" cy="{y[p.step]:.1f}" r="2.6">'
        f"<title>step {p.step}: {losses[p.step]:.4g}</title></circle>"
        for p in found.points
    )
    base, texts = HEIGHT - BOTTOM, [
        (LEFT - 5, TOP + 4, "end", f"{high:.3g}"),
        (LEFT - 5, HEIGHT - BOTTOM + 3, "end", f"{low:.3g}"),
        (LEFT, HEIGHT - 5, "middle", "0"),
        (WIDTH - RIGHT, HEIGHT - 5, "end", f"{len(losses) - 1} steps"),
        ((LEFT + WIDTH) / 2, HEIGHT - 5, "middle", "loss on your images"),
    ]  # fmt: skip
    labels = "".join(f'<text x="{a}" y="{b}" text-anchor="{c}">{t}</text>' for a, b, c, t in texts)
    return (
        f'<svg class="mg-curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss over steps">'
        f'<path d="M{LEFT} {TOP}V{base}H{WIDTH - RIGHT}"/><polyline points="{path}"/>{dots}{labels}</svg>'
    )


def _image(image: np.ndarray, alt: str, kind: str = "") -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{kind}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
