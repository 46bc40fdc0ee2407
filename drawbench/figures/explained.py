"""The pictures that explain DRAW: drawings with and without attention side by side, and what
a reader sees in a drawing after each step.

Pictures are (C, H, W) with C 1 or 3 and lie in [0, 1].

Symbols: B images, T steps, K classes, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from drawbench.figures.drawings import channels_last, check_outlines, spread
from drawbench.figures.style import OTHER_COLOURS, RED, WIDTH, array, bare, styled
from drawbench.figures.windows import Outlines, WindowOutline, show_image, view_of

STEPS = 7  # of a drawing, beside another drawing
READ_STEPS = 20  # of a drawing above its strip
#: Colours of classes, light enough for black letters: Okabe & Ito's and four more.
CLASS_COLOURS = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#4C9BCF", "#E8793A", "#CC79A7"),
    *("#B9B9B9", "#A6D854", "#C9A66B"),
)


class Drawn(NamedTuple):
    """Drawings of one model."""

    title: str
    canvases: np.ndarray  #: (B, T, C, H, W) in [0, 1]
    writes: Outlines | None = None  #: (B, T), where each step wrote


def _show(axes: Axes, picture: np.ndarray, view: tuple[float, float, float, float]) -> None:
    show_image(bare(axes), picture.squeeze(-1) if picture.shape[-1] == 1 else picture, view)
    axes.set_facecolor("0.8")


@styled
def side_by_side(left: Drawn, right: Drawn) -> Figure:
    """Show the drawings of two models as they emerge, side by side: a row per drawing, up to seven
    steps each, evenly spaced, with the first and the last.

    A red outline is where that step wrote, its border thicker the sharper the filters.

    Raises:
        ValueError: for another shape, values outside [0, 1], or another number of drawings.
    """
    halves = []
    for name, drawn in (("left", left), ("right", right)):
        pictures = channels_last(drawn.canvases, "B, T, C, H, W", f"the {name} canvases")
        check_outlines(drawn.writes, pictures.shape[:2], f"the {name} writes")
        halves.append(pictures)
    if len(halves[0]) != len(halves[1]):
        raise ValueError(
            f"got {len(halves[0])} drawings on the left, {len(halves[1])} on the right"
        )
    head, gap, apart = 0.36, 0.03, 0.3  # inches
    cell = (WIDTH - apart) / (2 * STEPS) - gap
    size = (WIDTH, head + len(halves[0]) * (cell + gap))
    figure = Figure(figsize=size)
    for half, (drawn, pictures) in enumerate(zip((left, right), halves, strict=True)):
        shown = spread(pictures.shape[1], STEPS)
        height, width = pictures.shape[2:4]
        view, start = view_of(height, width), half * (WIDTH + apart) / 2
        middle = (start + len(shown) * (cell + gap) / 2) / WIDTH
        figure.text(middle, 1 - 0.02 / size[1], drawn.title, weight="bold", ha="center", va="top")
        for n in range(len(pictures)):
            for column, t in enumerate(shown):
                x, y = start + column * (cell + gap), head + n * (cell + gap)
                corner = (x / size[0], 1 - (y + cell) / size[1])
                axes = figure.add_axes((*corner, cell / size[0], cell / size[1]))
                _show(axes, pictures[n, t], view)
                if drawn.writes is not None:
                    WindowOutline(axes, view, colour=RED, scale=0.5).move(*drawn.writes.at(n, t))
                if n == 0:
                    axes.set_title(
                        f"step {t + 1}" if column == 0 else str(t + 1), pad=2, fontsize=7
                    )
    return figure


@styled
def readings(canvases, probabilities, classes: Sequence[str]) -> Figure:
    """Show drawings as they emerge, and below each step what a reader takes it for.

    The colour of a field is the class, as strong as the reader is sure of it; its sign is the
    class's name. A bar marks each change of mind.

    Args:
        canvases: (B, T, C, H, W) in [0, 1].
        probabilities: (B, T, K), the reader's.
        classes: K names.

    Returns:
        A row per drawing of up to 20 steps, evenly spaced, with the first and the last.

    Raises:
        ValueError: for another shape, or values outside [0, 1].
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    read = array(probabilities).astype(float)
    if read.shape != (*pictures.shape[:2], len(classes)):
        wanted = (*pictures.shape[:2], len(classes))
        raise ValueError(f"probabilities must be (B, T, K) = {wanted}, got {read.shape}")
    steps, height, width = pictures.shape[1:4]
    shown, view = spread(steps, READ_STEPS), view_of(height, width, margin=0.0)
    cell, strip, below, head = WIDTH / len(shown), 0.17, 0.12, 0.2  # inches
    row = cell + strip + below
    size = (WIDTH, head + len(pictures) * row - below)
    figure = Figure(figsize=size)
    colours = [*CLASS_COLOURS, *OTHER_COLOURS]
    for n in range(len(pictures)):
        top = head + n * row
        for column, t in enumerate(shown):
            corner = (column * cell / WIDTH, 1 - (top + cell) / size[1])
            axes = figure.add_axes((*corner, 0.97 * cell / WIDTH, 0.97 * cell / size[1]))
            _show(axes, pictures[n, t], view)
            if n == 0:
                axes.set_title("step 1" if t == 0 else str(t + 1), pad=2, fontsize=7)
        corner = (0.0, 1 - (top + cell + strip) / size[1])
        axes = bare(figure.add_axes((*corner, 1.0, strip / size[1])))
        axes.set(xlim=(0, len(shown)), ylim=(0, 1))
        _draw_strip(axes, read[n, shown], classes, colours)
    return figure


def _draw_strip(
    axes: Axes, read: np.ndarray, classes: Sequence[str], colours: Sequence[str]
) -> None:
    """Draw the fields of one drawing: a class, and how sure the reader is of it."""
    before = None
    for column, step in enumerate(read):
        best = int(step.argmax())
        field = Rectangle((column, 0), 0.97, 1, edgecolor="none")
        field.set(facecolor=colours[best % len(colours)], alpha=float(step[best]) ** 2)
        axes.add_patch(field)
        place = (column + 0.485, 0.47)
        axes.text(*place, classes[best], ha="center", va="center", fontsize=7, parse_math=False)
        if before not in (None, best):
            axes.axvline(column - 0.015, color="black", linewidth=1.6, clip_on=False)
        before = best
