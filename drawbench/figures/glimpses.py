"""What a glimpse classifier looked at: sheets of glimpse paths, and the montage of a data set."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from drawbench.figures.style import BLUE, RED, WIDTH, WINDOW, array, as_pictures, bare, styled
from drawbench.figures.windows import Outlines, WindowOutline, show_image, view_of

PER_SHEET = 4  # images on a figure of paths: they fill a page


def class_probabilities(logits) -> np.ndarray:
    """Return the softmax over the last dimension."""
    logits = array(logits).astype(float)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def panels(images, logits, patches, names) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return pictures, class probabilities, pictures of patches, and names of the classes."""
    channels = 1 if array(images).ndim == 3 else array(images).shape[1]
    probabilities = class_probabilities(logits)
    names = list(map(str, names if names is not None else range(probabilities.shape[-1])))
    return as_pictures(images), probabilities, patch_pictures(patches, channels), names


def verdict(guess: int, label: int | None) -> tuple[str, str]:
    """Return a sign, which also reads in grey, and a colour; no sign where the truth is unknown."""
    if label is None:
        return "", BLUE
    return ("\N{CHECK MARK}", BLUE) if guess == label else ("\N{BALLOT X}", RED)


def patch_pictures(patches, channels: int) -> np.ndarray:
    """Return glimpses (..., S C, N, N) as pictures (..., N, S N, C) in [0, 1], scales side by side.

    Each is scaled to its own brightest pixel, since a wide blur reads only faint greys.
    """
    patches = array(patches).astype(float)
    *batch, _, rows, columns = patches.shape
    brightest = patches.max(axis=(-3, -2, -1), keepdims=True)
    patches = np.clip(patches / np.maximum(brightest, 1e-9), 0, 1)
    pieces = np.moveaxis(patches.reshape(*batch, -1, channels, rows, columns), -3, -1)
    return np.concatenate(np.moveaxis(pieces, -4, 0), axis=-2)


@styled
def montage(images, labels=None) -> Figure:
    """Show the first images of a set, 8 x 8 of them, with their labels.

    Args:
        images: uint8 (N, H, W), (N, C, H, W) or (N, H, W, 3).
        labels: (N,) or (N, digits), written in the corner.
    """
    count = 8
    pictures = as_pictures(images)[: count**2]
    height, width = pictures.shape[1:3]
    side = min(WIDTH / count, 9.0 / (count * height / width))  # on a page
    figure = Figure(figsize=(side * count, side * count * height / width))
    gap = 0.02
    for n, picture in enumerate(pictures):
        row, column = divmod(n, count)
        corner = ((column + gap) / count, 1 - (row + 1 - gap) / count)
        axes = bare(figure.add_axes((*corner, (1 - 2 * gap) / count, (1 - 2 * gap) / count)))
        axes.imshow(picture, vmin=0, vmax=255 if picture.dtype == np.uint8 else 1, aspect="auto")
        if labels is not None:
            name = " ".join(str(label) for label in np.atleast_1d(array(labels)[n]))
            text = axes.text(0.05, 0.94, name, transform=axes.transAxes, ha="left", va="top")
            text.set(color=WINDOW, fontsize=8, weight="bold")
            text.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
    return figure


def _draw_probabilities(axes: Axes, probabilities: np.ndarray, label: int | None, names) -> None:
    """Draw a bar per class, the true class (or else the guess) dark with its name below, and the
    guess above.
    """
    classes, guess = np.arange(len(probabilities)), int(probabilities.argmax())
    mark, colour = verdict(guess, label)
    named = guess if label is None else label
    colours = [BLUE if c == named else colour if c == guess else "0.72" for c in classes]
    axes.grid(False)
    axes.bar(classes, probabilities, width=0.8, color=colours)
    axes.plot([-0.5, len(classes) - 0.5], [0, 0], color="0.3", linewidth=0.6, clip_on=False)
    axes.set(xlim=(-0.6, len(classes) - 0.4), ylim=(0, 1), yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    text = axes.text(named, -0.07, names[named], ha="center", va="top", fontsize=6.5, color=BLUE)
    text.set(weight="bold", parse_math=False)
    title = " ".join(filter(None, [names[guess], mark, f"{100 * probabilities[guess]:.0f}%"]))
    axes.set_title(title, fontsize=6.5, pad=1.5, color=colour, parse_math=False)


@styled
def _sheet(pictures, labels, probabilities, patches, where: Outlines, names) -> Figure:
    """Draw one page of paths: a block of three rows per image, a column per glimpse."""
    steps, left = probabilities.shape[1], 0.62  # inches
    cell = float(np.clip((WIDTH - left) / steps, 0.62, 1.0))  # a sheet of four fits a page
    view = view_of(*pictures.shape[1:3])
    tall = cell * (view[3] - view[1]) / (view[2] - view[0])
    rows, gap, head = (0.95 * tall, 0.6 * cell, 0.34), 0.14, 0.22
    block = sum(rows) + 3 * gap
    size = (left + steps * cell, head + len(pictures) * block)
    figure = Figure(figsize=size)

    def place(x: float, y: float, width: float, height: float) -> Axes:
        """Add axes at inches from the top left."""
        corner = (x / size[0], 1 - (y + height) / size[1])
        return figure.add_axes((*corner, width / size[0], height / size[1]))

    for n, picture in enumerate(pictures):
        top = head + n * block
        for t in range(steps):
            x, inner = left + t * cell, 0.95 * cell
            axes = bare(place(x, top, inner, rows[0]))
            show_image(axes, picture, view)
            # Earlier windows are faint. A line through their centres would cross the digit.
            for polygon in where.corners[n, :t].reshape(-1, 4, 2):
                closed = np.vstack([polygon, polygon[:1]])
                axes.plot(*closed.T, color=WINDOW, linewidth=0.5, alpha=0.5, zorder=3)
            WindowOutline(axes, view, scale=0.6).move(*where.at(n, t))
            if n == 0:
                axes.set_title(f"glimpse {t + 1}" if cell > 0.7 else str(t + 1), pad=3)
            wide = min(rows[1] * patches.shape[-2] / patches.shape[-3], inner)
            axes = bare(place(x + (inner - wide) / 2, top + rows[0] + 0.05, wide, rows[1]))
            axes.imshow(patches[n, t], vmin=0, vmax=1)
            axes = place(x, top + sum(rows[:2]) + 0.05 + gap, inner, rows[2])
            label = None if labels is None else int(labels[n])
            _draw_probabilities(axes, probabilities[n, t], label, names)
        middles = (rows[0] / 2, rows[0] + 0.05 + rows[1] / 2, sum(rows[:2]) + gap + rows[2] / 2)
        first = f"answer\n{names[int(probabilities[n, -1].argmax())]}"
        if labels is not None:
            first = f"true class\n{names[int(labels[n])]}"
        titles = (first, "glimpse", "class\nprobability")
        for name, y in zip(titles, middles, strict=True):
            spot = (0.04 / size[0], 1 - (top + y) / size[1])
            figure.text(*spot, name, ha="left", va="center", fontsize=7, parse_math=False)
    return figure


def glimpse_paths(images, labels, logits, patches, where: Outlines, names=None) -> list[Figure]:
    """Show where a classifier looked, what it saw and what it thought, step by step.

    A row of panels per image, a column per step. On the image is the window, its border thicker the
    sharper its filters (as in the paper's figure), with earlier windows faint and a side beyond the
    view dotted along its edge. Below it are the patch, scaled to its own brightest pixel, and the
    class probabilities after that step, the true class dark.

    Args:
        images: uint8 or in [0, 1], (B, H, W) or (B, C, H, W).
        labels: (B,), or None where the true classes are unknown.
        logits: (B, T, classes).
        patches: (B, T, S C, N, N), S scales of the C channels.
        where: the outlines of B images and T steps.
        names: of the classes; 0 .. classes - 1 without.

    Returns:
        Figures of :data:`PER_SHEET` images each.
    """
    pictures, probabilities, patches, names = panels(images, logits, patches, names)
    labels = None if labels is None else array(labels)
    parts = [slice(start, start + PER_SHEET) for start in range(0, len(pictures), PER_SHEET)]
    return [
        _sheet(
            pictures[p],
            None if labels is None else labels[p],
            probabilities[p],
            patches[p],
            where.part(p),
            names,
        )
        for p in parts
    ]
