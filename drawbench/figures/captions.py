"""Captions and what was drawn from them: sheets, heat maps of attended words, animations."""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from drawbench.figures.drawings import channels_last
from drawbench.figures.style import WIDTH, bare, styled

COLUMNS = 5
_LINE = 0.115  # inches, of a caption


@styled
def captioned(pictures, captions) -> Figure:
    """Show pictures in rows of five, each over its caption.

    Args:
        pictures: (B, C, H, W) in [0, 1].
        captions: B sentences.

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    cells = channels_last(pictures, "B, C, H, W", "pictures")
    side, gap = (WIDTH + 0.1) / COLUMNS, 0.1
    texts = [textwrap.wrap(caption.removesuffix(" ."), 24) for caption in captions]
    foot = _LINE * max(map(len, texts)) + 0.12
    row_height = (side - gap) * cells.shape[1] / cells.shape[2] + foot
    rows = -(-len(cells) // COLUMNS)
    size = (WIDTH, rows * row_height)
    figure = Figure(figsize=size)
    for n, (cell, lines) in enumerate(zip(cells, texts, strict=True)):
        row, column = divmod(n, COLUMNS)
        corner = (column * side / size[0], 1 - ((row + 1) * row_height - foot) / size[1])
        sides = ((side - gap) / size[0], (row_height - foot) / size[1])
        axes = bare(figure.add_axes((*corner, *sides)))
        axes.imshow(np.broadcast_to(cell, (*cell.shape[:2], 3)), aspect="auto")
        axes.set_xlabel("\n".join(lines), fontsize=6.5, labelpad=2, linespacing=1.05)
    return figure
