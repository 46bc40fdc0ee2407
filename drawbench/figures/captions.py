"""Captions and what was drawn from them: sheets, heat maps of attended words, animations."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from drawbench.figures.animations import Caption
from drawbench.figures.drawings import channels_last, spread
from drawbench.figures.style import WIDTH, bare, styled

COLUMNS = 5
_LINE = 0.115  # inches, of a caption


@styled
def captioned(pictures, captions) -> Figure:
    """Show pictures in rows of five, each over its caption; one that all share stands above them.

    Args:
        pictures: (B, C, H, W) in [0, 1].
        captions: B sentences.

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    cells = channels_last(pictures, "B, C, H, W", "pictures")
    side, gap = (WIDTH + 0.1) / COLUMNS, 0.1
    shared = len(cells) > 1 and len(set(captions)) == 1
    head = 0.25 if shared else 0.0
    texts = [[] if shared else textwrap.wrap(text.removesuffix(" ."), 24) for text in captions]
    foot = _LINE * max(map(len, texts)) + 0.12
    row_height = (side - gap) * cells.shape[1] / cells.shape[2] + foot
    rows = -(-len(cells) // COLUMNS)
    size = (WIDTH, head + rows * row_height)
    figure = Figure(figsize=size)
    if shared:
        figure.text(0.0, 1 - 0.08 / size[1], captions[0], va="top", fontsize=8)
    for n, (cell, lines) in enumerate(zip(cells, texts, strict=True)):
        row, column = divmod(n, COLUMNS)
        corner = (column * side / size[0], 1 - (head + (row + 1) * row_height - foot) / size[1])
        sides = ((side - gap) / size[0], (row_height - foot) / size[1])
        axes = bare(figure.add_axes((*corner, *sides)))
        axes.imshow(np.broadcast_to(cell, (*cell.shape[:2], 3)), aspect="auto")
        axes.set_xlabel("\n".join(lines), fontsize=6.5, labelpad=2, linespacing=1.05)
    return figure


@styled
def attended_words(canvases, captions: Sequence[Caption]) -> Figure:
    """Show which words each step attends to, under the canvases that the steps leave.

    Args:
        canvases: (B, T, C, H, W) in [0, 1]; few, they stand one above the other.
        captions: B of them.

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    count, steps = pictures.shape[:2]
    figure = Figure(figsize=(WIDTH, 2.6 * count), layout="constrained")
    panels = figure.subplots(2 * count, 1, height_ratios=[1, 2.6] * count, squeeze=False)[:, 0]
    shown, top = spread(steps, 12), max(float(caption.weights.max()) for caption in captions)
    for n, caption in enumerate(captions):
        strip, axes = panels[2 * n], panels[2 * n + 1]
        cells = [np.pad(pictures[n, t], ((0, 0), (1, 1), (0, 0)), constant_values=1) for t in shown]
        mosaic = np.concatenate(cells, axis=1)
        bare(strip).imshow(np.broadcast_to(mosaic, (*mosaic.shape[:2], 3)))
        strip.set_title(" ".join(caption.words), fontsize=7, pad=3)
        edges = (0.5, steps + 0.5, len(caption.words) - 0.5, -0.5)
        limits = {"vmin": 0, "vmax": top, "cmap": "viridis", "aspect": "auto", "extent": edges}
        shades = axes.imshow(caption.weights.T, **limits)
        axes.grid(False)
        axes.set_yticks(range(len(caption.words)), caption.words, fontsize=6)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 4, 5, 10]))
    panels[-1].set_xlabel("step of the drawing")
    figure.colorbar(shades, ax=panels[1::2], label="weight of the word", fraction=0.04, pad=0.01)
    return figure
