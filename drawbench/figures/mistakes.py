"""Images that a classifier got wrong, with the path of its glimpses."""

import math

from matplotlib.figure import Figure

from drawbench.figures.glimpses import class_probabilities
from drawbench.figures.style import RED, WIDTH, WINDOW, array, as_pictures, bare, styled
from drawbench.figures.windows import Outlines, show_image, view_of

COLUMNS = 4


@styled
def mistakes_sheet(images, labels, logits, where: Outlines | None = None, names=None) -> Figure:
    """Show misread images, each with its true class and the answer.

    Windows are drawn over the image, later ones more opaque, with a line through their centres.

    Args:
        images: uint8 or in [0, 1], (B, H, W) or (B, C, H, W).
        labels: (B,).
        logits: (B, T, classes); the last step's are the answer.
        where: the outlines of B images and T steps; of several scales the first is drawn.
        names: of the classes; 0 .. classes - 1 without.

    Raises:
        ValueError: if there are no images.
    """
    pictures, labels, answers = (
        as_pictures(images),
        array(labels),
        class_probabilities(logits)[:, -1],
    )
    if not len(pictures):
        raise ValueError("there is nothing to show: no image was misread")
    names = list(map(str, names if names is not None else range(answers.shape[-1])))
    columns = min(COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures.shape[1:3]
    view = view_of(height, width) if where is not None else (-0.5, -0.5, width - 0.5, height - 0.5)
    cell, head = WIDTH / COLUMNS, 0.2  # inches
    tall = cell * (view[3] - view[1]) / (view[2] - view[0]) + head
    size = (columns * cell, rows * tall)
    figure = Figure(figsize=size)
    for n, picture in enumerate(pictures):
        left, top = n % columns * cell, n // columns * tall + head
        place = (left / size[0], 1 - (top + tall - head) / size[1])
        inner = (0.96 * cell / size[0], 0.97 * (tall - head) / size[1])
        axes = bare(figure.add_axes((*place, *inner)))
        show_image(axes, picture, view)
        if where is not None:
            _draw_path(axes, where.corners[n, :, 0])
        guess = int(answers[n].argmax())
        title = f"{names[int(labels[n])]} read as {names[guess]}, {100 * answers[n, guess]:.0f}%"
        axes.set_title(title, fontsize=7.5, pad=2, color=RED, parse_math=False)
    return figure


def _draw_path(axes, polygons) -> None:
    """Draw the windows (T, 4, 2) of one image, and a line through their centres."""
    steps = len(polygons)
    for t, polygon in enumerate(polygons):
        closed = polygon[[0, 1, 2, 3, 0]]
        opacity = 0.25 + 0.65 * t / max(steps - 1, 1)
        axes.plot(*closed.T, color=WINDOW, linewidth=0.7, alpha=opacity, zorder=3)
    axes.plot(*polygons.mean(axis=1).T, color=WINDOW, linewidth=0.6, alpha=0.8, zorder=3)
