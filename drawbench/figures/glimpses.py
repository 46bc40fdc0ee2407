"""What a glimpse classifier looked at: sheets of paths, a film, and the montage of a data set."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from drawbench.figures.style import (
    BLUE,
    FILM_LIMIT,
    RED,
    WIDTH,
    WINDOW,
    array,
    as_pictures,
    bare,
    styled,
)
from drawbench.figures.windows import WindowOutline, pick, rectangle, show_image, view_of
from drawbench.files import write_atomically
from drawbench.models.glimpse import Glimpses


def _probabilities(logits) -> np.ndarray:
    """Softmax over the last dimension."""
    logits = array(logits).astype(float)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _verdict(guess: int, label: int) -> tuple[str, str]:
    """A sign, which can be read in grey, and a colour."""
    return ("\N{CHECK MARK}", BLUE) if guess == label else ("\N{BALLOT X}", RED)


def _as_patch(patch: np.ndarray) -> np.ndarray:
    """A glimpse (C, N, N) as a picture in [0, 1], scaled to its own brightest filter, since a wide
    blur reads only faint greys.
    """
    patch = np.clip(patch / max(patch.max(), 1e-9), 0, 1)
    return patch[0] if len(patch) == 1 else np.moveaxis(patch, 0, -1)


@styled
def montage(images, labels=None, rows: int = 8, columns: int = 8) -> Figure:
    """The first ``rows * columns`` images of a set, with their labels.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3); places beyond the last stay empty.
        labels: (N,) or (N, digits), written in the corner.
    """
    pictures = as_pictures(images)[: rows * columns]
    height, width = pictures.shape[1:3]
    side = min(WIDTH / columns, 9.0 / (rows * height / width))  # on a page
    figure = Figure(figsize=(side * columns, side * rows * height / width))
    for n, picture in enumerate(pictures):
        row, column = divmod(n, columns)
        gap = 0.02
        place = (
            (column + gap) / columns,
            1 - (row + 1 - gap) / rows,
            (1 - 2 * gap) / columns,
            (1 - 2 * gap) / rows,
        )
        axes = bare(figure.add_axes(place))
        axes.imshow(picture, vmin=0, vmax=255 if picture.dtype == np.uint8 else 1, aspect="auto")
        if labels is not None:
            name = " ".join(str(label) for label in np.atleast_1d(array(labels)[n]))
            text = axes.text(
                0.05,
                0.94,
                name,
                transform=axes.transAxes,
                ha="left",
                va="top",
                color=WINDOW,
                fontsize=8,
                weight="bold",
            )
            text.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
    return figure


def _draw_path(axes, glimpses: Glimpses, n: int, step: int, patch: int) -> None:
    """The windows before this one, faint. A line through their centres would cross the digit and
    change what one reads.
    """
    for earlier in range(step):
        box = rectangle(pick(glimpses.windows, n, earlier), patch)
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * (box.width, box.height) + (
            box.left,
            box.top,
        )
        axes.plot(*corners.T, color=WINDOW, linewidth=0.5, alpha=0.5, zorder=3)


def _draw_chances(axes, chances: np.ndarray, label: int) -> None:
    """Bars of the class probabilities, the true class dark with its number below, and the guess
    above.
    """
    classes, guess = np.arange(len(chances)), int(chances.argmax())
    mark, verdict = _verdict(guess, label)
    colours = [BLUE if c == label else verdict if c == guess else "0.72" for c in classes]
    axes.grid(False)
    axes.bar(classes, chances, width=0.8, color=colours)
    axes.plot([-0.5, len(classes) - 0.5], [0, 0], color="0.3", linewidth=0.6, clip_on=False)
    axes.set(xlim=(-0.6, len(classes) - 0.4), ylim=(0, 1), yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    axes.text(
        label, -0.07, str(label), ha="center", va="top", fontsize=6.5, color=BLUE, weight="bold"
    )
    axes.set_title(
        f"{guess} {mark} {100 * chances[guess]:.0f} %", fontsize=6.5, pad=1.5, color=verdict
    )


@styled
def _sheet(pictures: np.ndarray, labels: np.ndarray, glimpses: Glimpses, numbers: range) -> Figure:
    """One page of paths: the images ``numbers``, a block of three rows for each, a column for each
    step.
    """
    steps, patch = array(glimpses.logits).shape[1], array(glimpses.patches).shape[-1]
    patches, chances = array(glimpses.patches), _probabilities(glimpses.logits)
    left, cell = (
        0.62,
        float(np.clip((WIDTH - 0.62) / steps, 0.62, 1.0)),
    )  # inches; a sheet of four fits a page
    view = view_of(*pictures.shape[1:3])
    tall = cell * (view[3] - view[1]) / (view[2] - view[0])
    rows, gap, head = (0.95 * tall, 0.6 * cell, 0.34), 0.14, 0.22
    block = sum(rows) + 3 * gap
    size = (left + steps * cell, head + len(numbers) * block)
    figure = Figure(figsize=size)

    def place(x: float, y: float, width: float, height: float):
        """Axes from inches, y downwards from the top."""
        return figure.add_axes(
            (x / size[0], 1 - (y + height) / size[1], width / size[0], height / size[1])
        )

    for block_number, n in enumerate(numbers):
        top = head + block_number * block
        for t in range(steps):
            x, inner = left + t * cell, 0.95 * cell
            axes = bare(place(x, top, inner, rows[0]))
            show_image(axes, pictures[n], view)
            _draw_path(axes, glimpses, n, t, patch)
            WindowOutline(axes, patch, view, scale=0.6).move(pick(glimpses.windows, n, t))
            if block_number == 0:
                axes.set_title(f"glimpse {t + 1}" if cell > 0.7 else str(t + 1), pad=3)
            axes = bare(place(x + (inner - rows[1]) / 2, top + rows[0] + 0.05, rows[1], rows[1]))
            axes.imshow(_as_patch(patches[n, t]), vmin=0, vmax=1)
            _draw_chances(
                place(x, top + sum(rows[:2]) + 0.05 + gap, inner, rows[2]),
                chances[n, t],
                int(labels[n]),
            )
        names = (f"image,\na {labels[n]}", "glimpse", "class\nchances")
        middles = (rows[0] / 2, rows[0] + 0.05 + rows[1] / 2, sum(rows[:2]) + gap + rows[2] / 2)
        for name, y in zip(names, middles, strict=True):
            figure.text(
                0.04 / size[0], 1 - (top + y) / size[1], name, ha="left", va="center", fontsize=7
            )
    return figure


def glimpse_paths(
    images, labels, glimpses: Glimpses, most: int = 16, per_sheet: int = 4
) -> list[Figure]:
    """Where a classifier looked, what it saw and what it thought, step by step.

    For each image a row of panels, one a step. On the image the window, from the first filter
    centre to the last, its border the thicker the sharper the filters (as in the paper's figure);
    earlier windows faint; a side beyond the view is dotted along its edge. Below it the patch that
    the network saw, scaled to its own brightest filter, and the class probabilities after that
    step, the true class dark.

    Args:
        images: uint8 or [0, 1] (B, H, W), or (B, C, H, W) as given to the model.
        labels: (B,).
        glimpses: what the model returned for these images.
        most: draw no more images than this.
        per_sheet: images on a figure.

    Returns:
        Figures of ``per_sheet`` images each.
    """
    pictures, labels = as_pictures(images)[:most], array(labels).reshape(-1)
    starts = range(0, len(pictures), per_sheet)
    return [
        _sheet(pictures, labels, glimpses, range(start, min(start + per_sheet, len(pictures))))
        for start in starts
    ]


class _FilmCell:
    """One image of the film: its window, the patch it shows, and the guess after the step."""

    def __init__(
        self,
        figure: Figure,
        place: tuple[float, float, float, float],
        picture: np.ndarray,
        label: int,
        patch: int,
    ):
        self.label = label
        left, bottom, width, height = place
        view = view_of(*picture.shape[:2])
        scene = bare(figure.add_axes((left, bottom, 0.64 * width, height)))
        scene.set_anchor("W")
        show_image(scene, picture, view)
        self.outline = WindowOutline(scene, patch, view, scale=0.9)
        inset = bare(
            figure.add_axes(
                (left + 0.66 * width, bottom + 0.45 * height, 0.3 * width, 0.5 * height)
            )
        )
        inset.set_anchor("N")
        self.patch = inset.imshow(np.zeros((patch, patch)), vmin=0, vmax=1)
        middle = left + 0.81 * width
        self.guess = figure.text(
            middle, bottom + 0.30 * height, "", ha="center", va="center", fontsize=13, weight="bold"
        )
        self.chance = figure.text(
            middle, bottom + 0.10 * height, "", ha="center", va="center", fontsize=7
        )

    def show(self, window, patch: np.ndarray, chances: np.ndarray) -> None:
        self.outline.move(window)
        self.patch.set_data(_as_patch(patch))
        guess = int(chances.argmax())
        mark, colour = _verdict(guess, self.label)
        self.guess.set(text=f"{guess} {mark}", color=colour)
        self.chance.set(text=f"{100 * chances[guess]:.0f} %")


@styled
def _film_frames(
    pictures: np.ndarray, labels: np.ndarray, glimpses: Glimpses, columns: int, dpi: int
) -> list[Image.Image]:
    """The pages of the film, one a step."""
    steps, patch = array(glimpses.logits).shape[1], array(glimpses.patches).shape[-1]
    patches, chances = array(glimpses.patches), _probabilities(glimpses.logits)
    rows = -(-len(pictures) // columns)
    cell, head = (1.7, 1.1), 0.3  # inches
    size = (columns * cell[0] + 0.1, rows * cell[1] + head)
    figure = Figure(figsize=size, dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    title = figure.text(0.02, 1 - head / 2 / size[1], "", ha="left", va="center", fontsize=9)
    cells = []
    for n, picture in enumerate(pictures):
        row, column = divmod(n, columns)
        place = (
            (0.1 + column * cell[0]) / size[0],
            1 - (head + (row + 1) * cell[1] - 0.08) / size[1],
        )
        cells.append(
            _FilmCell(
                figure,
                (*place, cell[0] / size[0], (cell[1] - 0.08) / size[1]),
                picture,
                int(labels[n]),
                patch,
            )
        )
    frames = []
    for t in range(steps):
        right = int((chances[: len(cells), t].argmax(-1) == labels[: len(cells)]).sum())
        title.set_text(f"glimpse {t + 1} of {steps}: {right} of {len(cells)} right")
        for n, cell_ in enumerate(cells):
            cell_.show(pick(glimpses.windows, n, t), patches[n, t], chances[n, t])
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return frames


def _palette(shades: int) -> Image.Image:
    """Greys, and the way from each colour to the grounds it is drawn on.

    A palette fitted to the pixels would be nearly all grey, and turn the few red marks of wrong
    guesses into the window's orange.
    """
    ways = [
        ("black", "white", 2 * shades),
        ("black", WINDOW, shades),
        ("0.45", WINDOW, shades),
        ("white", WINDOW, shades),
    ]
    ways += [("white", BLUE, shades), ("white", RED, shades)]
    colours = np.concatenate(
        [np.linspace(to_rgb(ground), to_rgb(colour), count) for ground, colour, count in ways]
    )
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * colours).astype(np.uint8).tobytes())
    return palette


def _gif(frames: Sequence[Image.Image], durations: Sequence[int], shades: int) -> bytes:
    """Frames as a looping GIF with one palette for all."""
    palette = _palette(shades)
    pages = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    pages[0].save(
        buffer,
        "gif",
        save_all=True,
        append_images=pages[1:],
        duration=list(durations),
        loop=0,
        optimize=False,
        disposal=1,
    )
    return buffer.getvalue()


def glimpse_film(
    images,
    labels,
    glimpses: Glimpses,
    path: Path | str,
    columns: int = 4,
    most: int = 16,
    milliseconds: int = 700,
) -> Path:
    """The same as a film: each window moving step by step, the patch it shows, and the guess after
    the step.

    Args:
        images, labels, glimpses: as for :func:`glimpse_paths`.
        path: of the GIF to write, whole or not at all.
        columns: images beside each other.
        most: show no more images than this.
        milliseconds: a step; the last one stays four times as long.

    Returns: The path. The film has a frame for each glimpse and at most 500 kB: resolution and
        shades give way to that.
    """
    pictures, labels, path = as_pictures(images)[:most], array(labels).reshape(-1), Path(path)
    steps = array(glimpses.logits).shape[1]
    durations = [milliseconds] * (steps - 1) + [4 * milliseconds]
    for dpi, shades in ((120, 12), (90, 10), (70, 8), (50, 6)):
        content = _gif(
            _film_frames(pictures, labels, glimpses, min(columns, len(pictures)), dpi),
            durations,
            shades,
        )
        if len(content) <= FILM_LIMIT:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path
