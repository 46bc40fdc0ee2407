"""What a generator draws: its steps, samples, reconstructions and interpolations, and the KL of its
steps.

Pictures are (C, H, W) with C 1 or 3 and lie in [0, 1]. A window that writes is red, one that reads
green.

Symbols: B images, T steps, C channels, H rows, W columns.
"""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from drawbench.figures.curves import count_unit
from drawbench.figures.style import BLUE, RED, STYLE, WIDTH, annotate, array, bare, settle, styled
from drawbench.figures.windows import Outlines, WindowOutline, show_image, view_of

_DPI = STYLE["savefig.dpi"]
_MAX_HEIGHT = 9.0  # inches, a page
_IN_A_ROW = 8  # reconstructions
_STEPS = 10  # of a drawing that are shown


def channels_last(values, axes: str, name: str) -> np.ndarray:
    """Return pictures as (..., H, W, C).

    Raises:
        ValueError: unless ``values`` has the ``axes`` (..., C, H, W) and lies in [0, 1].
    """
    pictures = array(values)
    dimensions = len(axes.split(", "))
    if pictures.ndim != dimensions or 0 in pictures.shape or pictures.shape[-3] not in (1, 3):
        raise ValueError(f"{name} must be ({axes}) with 1 or 3 channels, got {pictures.shape}")
    if not (pictures.min() >= 0 and pictures.max() <= 1):
        limits = f"{pictures.min()} to {pictures.max()}"
        raise ValueError(f"{name} must lie in [0, 1], got {limits}: show probabilities, not logits")
    return np.moveaxis(pictures, -3, -1)


def _check_same_shape(one: np.ndarray, other: np.ndarray, names: str) -> None:
    if one.shape != other.shape:
        shapes = f"{one.shape} and {other.shape} (channels last)"
        raise ValueError(f"{names} must have one shape, got {shapes}")


def check_outlines(where: Outlines | None, shape: tuple[int, ...], name: str) -> None:
    """Raise ``ValueError`` unless there are no outlines, or outlines for B images and T steps."""
    if where is not None and where.corners.shape[:2] != shape:
        got = where.corners.shape[:2]
        raise ValueError(f"{name} must be (B, T) = {tuple(shape)} like the canvases, got {got}")


def spread(steps: int, count: int) -> np.ndarray:
    """Return up to ``count`` of the steps 0 .. steps - 1, evenly spaced, with first and last."""
    return np.unique(np.rint(np.linspace(0, steps - 1, max(count, 2))).astype(int))


# Sheets are one large picture in which every pixel is the same whole number of dots.


def _offsets(count: int, size: int, gap: int, group: int = 1, wide: int = 0) -> np.ndarray:
    """Return where cells start, pixels: ``gap`` before each, ``wide`` more before each group."""
    n = np.arange(count)
    return gap + n * (size + gap) + n // group * wide


def _in_rows(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Return (B, H, W, C) as (rows, columns, H, W, C); places beyond the last are white."""
    missing = -len(pictures) % columns
    pictures = np.concatenate([pictures, np.ones((missing, *pictures.shape[1:]), pictures.dtype)])
    return pictures.reshape(-1, columns, *pictures.shape[1:])


def _lay_out(
    cells: np.ndarray, tops: np.ndarray, lefts: np.ndarray, caption: str = "", left: float = 0.0
) -> tuple[Figure, Axes]:
    """Draw (rows, columns, H, W, C) at these offsets, ``left`` inches free, a caption below.

    The data coordinates of the axes are the pixels of the whole.
    """
    height, width = cells.shape[2:4]
    mosaic = np.ones((tops[-1] + height + tops[0], lefts[-1] + width + lefts[0], 3), np.float32)
    for row, top in zip(cells, tops, strict=True):
        for cell, start in zip(row, lefts, strict=True):
            mosaic[top : top + height, start : start + width] = cell
    tall, wide = mosaic.shape[:2]
    limits = ((WIDTH - left) / wide, _MAX_HEIGHT / tall, 1.1 / max(height, width))
    dots = _DPI * min(limits)
    scale = (np.floor(dots) if dots > 1 else dots) / _DPI  # inches per pixel
    across = max(wide * scale + left, 2.6 if caption else 0.0)
    lines = textwrap.wrap(caption, int(across / 0.058))  # inches of the mean letter
    foot = 0.13 * len(lines) + 0.08 if lines else 0.0
    size = (across, tall * scale + foot)
    figure = Figure(figsize=size)
    corner = ((left + (across - left - wide * scale) / 2) / size[0], foot / size[1])
    axes = bare(figure.add_axes((*corner, wide * scale / size[0], tall * scale / size[1])))
    axes.imshow(mosaic, vmin=0, vmax=1, aspect="auto", extent=(0, wide, tall, 0))
    if lines:
        spot = (0.5, 0.05 / size[1])
        figure.text(*spot, "\n".join(lines), ha="center", va="bottom", fontsize=7)
    return figure, axes


def _frame(axes: Axes, left: int, top: int, size: tuple[int, ...]) -> None:
    """Draw a border of one point just outside a cell."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    low, high = axes.get_xlim()
    gap = 0.4 * (high - low) / (figure.get_figwidth() * axes.get_position().width * 72)
    sides = (size[1] + 2 * gap, size[0] + 2 * gap)
    style: dict[str, Any] = {"fill": False, "edgecolor": BLUE, "linewidth": 1.0, "clip_on": False}
    axes.add_patch(Rectangle((left - gap, top - gap), *sides, **style))


def _gap(size: tuple[int, ...], share: float) -> int:
    return max(1, round(share * max(size)))


@styled
def sample_sheet(samples, nearest=None) -> Figure:
    """Show samples in a grid, each beside its nearest training image, framed, if these are passed.

    Args:
        samples: (B, C, H, W) in [0, 1].
        nearest: (B, C, H, W) in [0, 1], or None.

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    cells = channels_last(samples, "B, C, H, W", "samples")
    count, size = len(cells), cells.shape[1:3]
    columns = int(np.ceil(np.sqrt(count)))
    if nearest is None:
        grid, gap = _in_rows(cells, columns), _gap(size, 0.07)
        return _lay_out(grid, _offsets(len(grid), size[0], gap), _offsets(columns, size[1], gap))[0]
    others = channels_last(nearest, "B, C, H, W", "nearest")
    _check_same_shape(cells, others, "samples and nearest")
    grid = _in_rows(np.stack([cells, others], axis=1).reshape(-1, *cells.shape[1:]), 2 * columns)
    tops = _offsets(len(grid), size[0], _gap(size, 0.2))
    lefts = _offsets(2 * columns, size[1], _gap(size, 0.1), group=2, wide=_gap(size, 0.2))
    caption = "Each pair: a sample and, framed, the training image nearest to it."
    figure, axes = _lay_out(grid, tops, lefts, caption)
    for n in range(count):
        _frame(axes, lefts[2 * (n % columns) + 1], tops[n // columns], size)
    return figure


@styled
def reconstruction_panel(images, reconstructions) -> Figure:
    """Show images, and below each what the model drew of it.

    Args:
        images: (B, C, H, W) in [0, 1].
        reconstructions: (B, C, H, W) in [0, 1].

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    above = channels_last(images, "B, C, H, W", "images")
    below = channels_last(reconstructions, "B, C, H, W", "reconstructions")
    _check_same_shape(above, below, "images and reconstructions")
    size, columns = above.shape[1:3], min(_IN_A_ROW, len(above))
    rows = np.stack([_in_rows(above, columns), _in_rows(below, columns)], axis=1)
    grid, gap = rows.reshape(-1, *rows.shape[2:]), _gap(size, 0.07)
    tops = _offsets(len(grid), size[0], gap, group=2, wide=_gap(size, 0.18))
    figure, axes = _lay_out(grid, tops, _offsets(columns, size[1], gap), left=0.5)
    for row, top in enumerate(tops):
        name = "drawing" if row % 2 else "image"
        annotate(axes, name, (0, top + size[0] / 2), (-2, 0), ha="right", va="center")
    return figure


@styled
def interpolation_panel(rows) -> Figure:
    """Show rows of pictures that go from one image to another; the ends are framed and set apart.

    Args:
        rows: (R, S, C, H, W) in [0, 1], S at least 2: a row of S pictures per pair of images.

    Raises:
        ValueError: for another shape, fewer than two pictures in a row, or values outside [0, 1].
    """
    cells = channels_last(rows, "R, S, C, H, W", "rows")
    (count, steps), size = cells.shape[:2], cells.shape[2:4]
    if steps < 2:
        raise ValueError(f"an interpolation needs at least two ends, got rows of {cells.shape}")
    gap, apart = _gap(size, 0.07), _gap(size, 0.25)
    tops, lefts = _offsets(count, size[0], _gap(size, 0.14)), _offsets(steps, size[1], gap)
    lefts[1:] += apart - gap
    lefts[-1] += apart - gap if steps > 2 else 0
    caption = "Framed: reconstructions of two images; between them, points on the line from one "
    figure, axes = _lay_out(cells, tops, lefts, f"{caption}to the other.")
    for top in tops:
        for left in lefts[[0, -1]]:
            _frame(axes, left, top, size)
    return figure


@styled
def steps_panel(canvases, writes: Outlines | None = None) -> Figure:
    """Show drawings as they emerge, as in the paper's first figure: a row per image, a column per
    step shown.

    The red outline is where that step wrote, its border thicker the sharper the filters; a side
    beyond the view is dotted along its edge.

    Args:
        canvases: (B, T, C, H, W) in [0, 1].
        writes: outlines (B, T); None for a model that writes without attention.

    Returns:
        A panel of ten steps at most, evenly spaced, with the first and the last.

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    count, steps, height, width, channels = pictures.shape
    check_outlines(writes, (count, steps), "writes")
    shown = spread(steps, _STEPS)
    view = view_of(height, width, margin=0.06 if writes else 0.0)
    share = (view[3] - view[1]) / (view[2] - view[0])
    gap, head, foot = 0.06, 0.22, 0.02  # inches
    cell = min((WIDTH + gap) / len(shown), (_MAX_HEIGHT - head) / count / share, 1.1)
    row = (cell - gap) * share + gap
    size = (max(len(shown) * cell - gap, 0.5), head + count * row - gap + foot)
    figure = Figure(figsize=size)
    for n in range(count):
        for column, t in enumerate(shown):
            corner = (column * cell / size[0], (size[1] - head - (n + 1) * row + gap) / size[1])
            axes = figure.add_axes((*corner, (cell - gap) / size[0], (row - gap) / size[1]))
            picture = pictures[n, t].squeeze(-1) if channels == 1 else pictures[n, t]
            show_image(bare(axes), picture, view)
            axes.set_facecolor("0.8")  # a canvas starts from the usual grey
            if writes is not None:
                WindowOutline(axes, view, colour=RED, scale=0.6).move(*writes.at(n, t))
            if n == 0:
                axes.set_title(f"step {t + 1}" if column == 0 else str(t + 1), pad=3)
    return figure


def _kl_of(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return updates (rows,), ascending, and KL (T, rows); the later of two rows counts."""
    names = [name for name in map(str, frame.columns) if name[3:].isdigit() and name[:3] == "kl_"]
    expected = [f"kl_{t + 1}" for t in range(len(names))]
    if not names or set(names) != set(expected) or "step" not in frame.columns:
        columns = ", ".join(map(str, frame.columns))
        raise ValueError(f"the frame must have the columns step and kl_1 .. kl_T, got {columns}")
    rows = frame.dropna(subset=expected).drop_duplicates("step", keep="last").sort_values("step")
    if rows.empty:
        raise ValueError("there is nothing to plot: the frame has no row with every kl_1 .. kl_T")
    return rows["step"].to_numpy(dtype=float), rows[expected].to_numpy(dtype=float).T


@styled
def kl_map(frame: pd.DataFrame) -> Figure:
    """Show when the model learned to use which step: the KL of each step during training.

    Args:
        frame: a row per evaluation, with ``step`` (updates) and ``kl_1`` .. ``kl_T`` (nats, mean
            over images).

    Returns:
        A map on which each evaluation reaches half-way to its neighbours. The scale is that after
        the first fifth of training; larger values before it share the last shade.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    updates, kl = _kl_of(frame)
    divisor, unit = count_unit(updates.max())
    if len(updates) == 1:
        edges = updates[[0, 0]] + np.array([-0.5, 0.5]) * divisor
    else:
        middles = (updates[1:] + updates[:-1]) / 2
        first, last = max(2 * updates[0] - middles[0], 0.0), 2 * updates[-1] - middles[-1]
        edges = np.array([first, *middles, last])
    late = updates >= updates[0] + 0.2 * (updates[-1] - updates[0])
    top = max(float(kl[:, late].max()), 1e-9)
    figure = Figure(figsize=(5.0, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    places = (edges / divisor, np.arange(len(kl) + 1) + 0.5)
    shades = axes.pcolormesh(*places, kl, cmap="viridis", vmin=0, vmax=top, rasterized=True)
    limits = edges[[0, -1]] / divisor
    axes.set(xlabel=f"training updates{unit}", ylabel="step of the drawing", xlim=limits)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    if len(kl) == 1:
        axes.set_yticks([1])
    if len(updates) == 1:
        axes.set_xticks(updates / divisor, [f"{updates[0] / divisor:g}"])
    extend, label = "max" if kl.max() > top else "neither", "KL of the step (nats)"
    figure.colorbar(shades, ax=axes, label=label, extend=extend, fraction=0.06, pad=0.02)
    return settle(figure)


@styled
def kl_per_step_bars(kl) -> Figure:
    """Show how much each step of the drawing tells about the image.

    Args:
        kl: (T,), the KL of each step in nats, mean over images.

    Raises:
        ValueError: unless ``kl`` is a row of finite numbers.
    """
    kl = array(kl).astype(float)
    if kl.ndim != 1 or len(kl) == 0 or not np.isfinite(kl).all():
        raise ValueError(f"kl must be (T,), a finite number of nats per step, got shape {kl.shape}")
    figure = Figure(figsize=(4.5, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False, axis="x")
    axes.bar(np.arange(1, len(kl) + 1), kl, width=0.8, color=BLUE)
    limits = (0.3, len(kl) + 0.7)
    axes.set(xlabel="step of the drawing", ylabel="KL of the step (nats)", xlim=limits)
    axes.set_ylim(bottom=min(0.0, kl.min()))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    if len(kl) == 1:
        axes.set(xticks=[1], xlim=(0, 2))
    axes.set_title(f"all steps: {kl.sum():.2f} nats", loc="right", weight="bold")
    return settle(figure)
