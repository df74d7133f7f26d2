"""Pictures of an evaluation: images class by class, quality over adaptation steps."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metagen.console import printable
from metagen.files import write_png

MAX_ROWS = 20
MAX_IMAGES = 16
TILE = 56  # pixels on the screen, about
INK, GREY, RED, PAPER = (30, 30, 30), (110, 110, 110), (214, 39, 40), (255, 255, 255)

Path = str | os.PathLike[str]


matplotlib.rcParams["text.parse_math"] = False  # a $ in a name begins no formula


def samples_grid(support: np.ndarray, samples: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw one row per class: its support images, a gap, its generated images.

    Args:
        support: uint8 (N, K, H, W), ink = 255, or (N, K, H, W, 3) in colour, as all others.
        samples: uint8 (N, M, H, W).
        classes: N names.
        path: PNG file to write.

    At most 20 classes and 16 images a side are drawn; the heading says of how many.
    """
    _grid([("support", support, None), ("generated", samples, None)], classes, path)


def predictions_grid(
    support: np.ndarray, query: np.ndarray, predicted: np.ndarray, classes: Sequence[str], path: Path
) -> None:
    """Draw one row per class: its support images, a gap, query images, wrong ones framed red.

    Args:
        support: uint8 (N, K, H, W).
        query: uint8 (N, Q, H, W).
        predicted: int (N, Q), the row that each query image was taken for; the name stands below a wrong one.
        classes: N names.
        path: PNG file to write.
    """
    _grid([("support", support, None), ("query (red: wrong)", query, np.asarray(predicted))], classes, path)


def _grid(
    parts: Sequence[tuple[str, np.ndarray, np.ndarray | None]], classes: Sequence[str], path: Path
) -> None:
    rows = min(len(classes), MAX_ROWS)
    sides = parts[0][1].shape[2:4]
    scale = max(1, round(TILE / sides[1]))
    h, w = (scale * n for n in sides)
    font, small = _font(15), _font(11)
    classes = [printable(name) for name in classes]  # a line feed has no place beside a row
    names = [_short(name, 24) for name in classes]
    caption = 16 if any(taken is not None for *_, taken in parts) else 0
    left = 16 + max(int(font.getlength(name)) for name in names[:rows]) + 14
    header, pad, gap = 40, 5, 30
    starts, x = [], left
    for _, images, _ in parts:
        starts.append(x)
        x += min(images.shape[1], MAX_IMAGES) * (w + pad) - pad + gap
    more = f"{rows} of {len(classes)} classes" if rows < len(classes) else ""
    width = max(x - gap + 16, left + 300)
    page = Image.new("RGB", (width, header + rows * (h + pad + caption) + 12 + 18 * bool(more)), PAPER)
    draw = ImageDraw.Draw(page)
    for start, (title, images, taken) in zip(starts, parts, strict=True):
        shown = min(images.shape[1], MAX_IMAGES)
        full = title if shown == images.shape[1] else f"{title} ({shown} of {images.shape[1]})"
        draw.text((start, header - 12), full, INK, font, anchor="ls")
        for row in range(rows):
            y = header + row * (h + pad + caption)
            if start == left:
                draw.text((left - 14, y + h / 2), names[row], INK, font, anchor="rm")
            for column in range(shown):
                box = (start + column * (w + pad), y)
                tile = Image.fromarray(images[row, column]).resize((w, h), Image.Resampling.NEAREST)
                page.paste(tile, box)
                if taken is None or taken[row, column] == row:
                    continue
                draw.rectangle((box[0] - 2, y - 2, box[0] + w + 1, y + h + 1), outline=RED, width=3)
                label = _short(classes[int(taken[row, column])], max(3, w // 7))
                draw.text((box[0] + w / 2, y + h + 3), label, RED, small, anchor="mt")
    if len(parts) > 1:
        x = starts[1] - gap // 2
        draw.line((x, header - 26, x, header + rows * (h + pad + caption) - pad), GREY)
    if more:
        draw.text((left, page.height - 8), more, GREY, small, anchor="ls")
    write_png(path, page)


def adaptation_plot(curve: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], path: Path) -> None:
    """Draw each metric over the adaptation steps with its 95 % band, one panel a metric.

    Args:
        curve: per step ``{"step": int, "seconds": float, "metrics": {name: {"mean", "ci95", "n"}}}``.
        metrics: name to an object with ``unit`` and ``better``, one panel each.
        path: PNG file to write.

    A learner that does not take steps has one point, drawn with a level line.
    """
    columns = 2 if len(metrics) == 4 else min(3, max(1, len(metrics)))
    lines = max(1, -(-len(metrics) // columns))
    figure = Figure((4.2 * columns, 3.1 * lines), dpi=110, layout="constrained")
    steps = [point["step"] for point in curve]
    for i, (name, metric) in enumerate(metrics.items()):
        axes = figure.add_subplot(lines, columns, i + 1)
        found = [point["metrics"].get(name) or {} for point in curve]
        mean = np.array([_number(summary.get("mean")) for summary in found])
        half = np.nan_to_num([_number(summary.get("ci95")) for summary in found])
        if len(steps) == 1:
            axes.axhline(mean[0], color="C0", linewidth=1, linestyle="--")
            axes.errorbar(steps, mean, half, color="C0", marker="o", capsize=4)
            axes.set_xticks(steps)
        else:
            axes.fill_between(steps, mean - half, mean + half, color="C0", alpha=0.25, linewidth=0)
            axes.plot(steps, mean, color="C0", marker="o" if len(steps) <= 30 else "", markersize=3.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not np.isfinite(mean).any():
            axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", color="0.5")
            axes.set(xticks=[], yticks=[])
        axes.set_title(f"{name.replace('_', ' ')} ({metric.better} is better)", fontsize=10)
        axes.set_ylabel(metric.unit or "ratio")
        axes.set_xlabel("adaptation step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    write_figure(path, figure)


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG; equal figures give equal bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_png(path, Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu from matplotlib: the same on every machine."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _short(text: str, length: int) -> str:
    # the end of a long name tells classes of one alphabet apart
    return text if len(text) <= length else "…" + text[1 - length :]


def to_uint8(x: Tensor) -> Any:
    """Turn images in [0, 1], (..., C, H, W), into a uint8 array: (..., H, W), or (..., H, W, 3) in colour."""
    levels = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return (levels.squeeze(-3) if levels.shape[-3] == 1 else levels.movedim(-3, -1)).contiguous().numpy()
