"""What a generator draws: its steps, samples, reconstructions and interpolations, and where its
nats go.

Pictures are (C, H, W) with C 1 or 3 and lie in [0, 1]: of a canvas, its sigmoid. A window that
writes is red, one that reads green.

Symbols: B images, T steps, C channels, H rows, W columns.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from drawbench.attention import Window
from drawbench.figures.curves import count_unit
from drawbench.figures.style import BLUE, RED, STYLE, WIDTH, array, bare, settle, styled
from drawbench.figures.windows import WindowOutline, pick, show_image, view_of

_DOTS = STYLE["savefig.dpi"]  # to the inch
_PAGE = 9.0  # inches: no figure is taller


# --- what is given ---


def channels_last(values, axes: str, name: str) -> np.ndarray:
    """Channels last, (..., H, W, C), once it is sure that ``values`` has the ``axes`` (..., C, H,
    W) and lies in [0, 1].
    """
    pictures = array(values)
    if (
        pictures.ndim != len(axes.split(", "))
        or 0 in pictures.shape
        or pictures.shape[-3] not in (1, 3)
    ):
        raise ValueError(f"{name} must be ({axes}) with 1 or 3 channels, got {pictures.shape}")
    if not (pictures.min() >= 0 and pictures.max() <= 1):
        raise ValueError(
            f"{name} must lie in [0, 1], got {pictures.min()} to {pictures.max()}: show the sigmoid of a canvas"
        )
    return np.moveaxis(pictures, -3, -1)


def _alike(one: np.ndarray, other: np.ndarray, names: str) -> None:
    if one.shape != other.shape:
        raise ValueError(
            f"{names} must have one shape, got {one.shape} and {other.shape} (channels last)"
        )


def check_windows(
    windows: Window | None, patch: int | None, shape: tuple[int, int], name: str
) -> None:
    """Raise ValueError unless there are windows (B, T) with a patch, or none."""
    if windows is None:
        return
    met = {array(field).shape for field in windows}
    if met != {shape}:
        raise ValueError(
            f"the fields of {name} must be (B, T) = {shape} like the canvases, got {', '.join(map(str, sorted(met)))}"
        )
    if patch is None or patch < 1:
        raise ValueError(f"{name} need the side of their patch, at least 1, got {patch}")


def spread(steps: int, count: int) -> np.ndarray:
    """At most ``count`` of the steps 0 .. steps - 1, evenly spaced, always the first and the last."""
    return np.unique(np.rint(np.linspace(0, steps - 1, max(count, 2))).astype(int))


# --- sheets: pictures laid out as one large picture, every pixel the same whole number of dots
# where there is room ---


def _offsets(
    count: int, size: int, gap: int, group: int = 1, wide: int | None = None
) -> np.ndarray:
    """Where ``count`` cells start, pixels: ``gap`` before each, ``wide`` before each group but the
    first.
    """
    n = np.arange(count)
    return gap + n * (size + gap) + (n // group) * ((gap if wide is None else wide) - gap)


def _in_rows(pictures: np.ndarray, columns: int) -> np.ndarray:
    """(B, H, W, C) as (rows, columns, H, W, C), the places beyond the last white."""
    missing = -len(pictures) % columns
    pictures = np.concatenate([pictures, np.ones((missing, *pictures.shape[1:]), pictures.dtype)])
    return pictures.reshape(-1, columns, *pictures.shape[1:])


def _lay_out(
    cells: np.ndarray,
    tops: np.ndarray,
    lefts: np.ndarray,
    caption: str = "",
    left: float = 0.0,
    head: float = 0.0,
) -> tuple[Figure, Axes]:
    """A figure with (rows, columns, H, W, C) at these offsets on white, a caption below, inches
    left free at the left and above.

    The data coordinates of the axes are the pixels of the whole.
    """
    height, width = cells.shape[2:4]
    mosaic = np.ones((tops[-1] + height + tops[0], lefts[-1] + width + lefts[0], 3), np.float32)
    for row, top in zip(cells, tops, strict=True):
        for cell, start in zip(row, lefts, strict=True):
            mosaic[top : top + height, start : start + width] = cell
    tall, wide = mosaic.shape[:2]
    dots = min(
        (WIDTH - left) * _DOTS / wide,
        (_PAGE - head) * _DOTS / tall,
        1.1 * _DOTS / max(height, width),
    )
    scale = (np.floor(dots) if dots > 1 else dots) / _DOTS  # inches to a pixel
    across = max(wide * scale + left, 2.6 if caption else 0.0)
    lines = textwrap.wrap(caption, int(across / 0.058))  # of the mean letter
    foot = 0.13 * len(lines) + 0.08 if lines else 0.0
    size = (across, head + tall * scale + foot)
    figure = Figure(figsize=size)
    start = left + (across - left - wide * scale) / 2
    axes = bare(
        figure.add_axes(
            (start / size[0], foot / size[1], wide * scale / size[0], tall * scale / size[1])
        )
    )
    axes.imshow(mosaic, vmin=0, vmax=1, aspect="auto", extent=(0, wide, tall, 0))
    if lines:
        figure.text(0.5, 0.05 / size[1], "\n".join(lines), ha="center", va="bottom", fontsize=7)
    return figure, axes


def _frame(axes: Axes, left: int, top: int, size: tuple[int, ...], colour: str) -> None:
    """A border just outside a cell."""
    points = 1.0
    pixels_to_a_point = (axes.get_xlim()[1] - axes.get_xlim()[0]) / (
        axes.figure.get_figwidth() * axes.get_position().width * 72
    )  # type: ignore[union-attr]
    out = 0.4 * points * pixels_to_a_point
    place = (left - out, top - out)
    axes.add_patch(
        Rectangle(
            place,
            size[1] + 2 * out,
            size[0] + 2 * out,
            fill=False,
            edgecolor=colour,
            linewidth=points,
            clip_on=False,
        )
    )


def _gap(size: tuple[int, ...], share: float) -> int:
    return max(1, round(share * max(size)))


@styled
def sample_sheet(samples, nearest=None, columns: int | None = None) -> Figure:
    """Samples in a grid; if given, beside each the training image nearest to it, framed, to rule
    out that they are copies.

    Args:
        samples: (B, C, H, W) in [0, 1].
        nearest: (B, C, H, W) in [0, 1], or None.
        columns: samples in a row; as many as rows if not given.

    Raises:
        ValueError: another shape, or values beyond [0, 1].
    """
    cells = channels_last(samples, "B, C, H, W", "samples")
    columns = min(int(np.ceil(np.sqrt(len(cells)))) if columns is None else columns, len(cells))
    if columns < 1:
        raise ValueError(f"a sheet has at least 1 column, got {columns}")
    size = cells.shape[1:3]
    if nearest is None:
        grid = _in_rows(cells, columns)
        gap = _gap(size, 0.07)
        return _lay_out(
            grid, _offsets(grid.shape[0], size[0], gap), _offsets(columns, size[1], gap)
        )[0]
    others = channels_last(nearest, "B, C, H, W", "nearest")
    _alike(cells, others, "samples and nearest")
    count = len(cells)
    grid = _in_rows(np.stack([cells, others], axis=1).reshape(-1, *cells.shape[1:]), 2 * columns)
    tops = _offsets(grid.shape[0], size[0], _gap(size, 0.2))
    lefts = _offsets(2 * columns, size[1], _gap(size, 0.1), group=2, wide=_gap(size, 0.3))
    figure, axes = _lay_out(
        grid, tops, lefts, "Each pair: a sample and, framed, the training image nearest to it."
    )
    for n in range(count):
        _frame(axes, lefts[2 * (n % columns) + 1], tops[n // columns], size, BLUE)
    return figure


@styled
def reconstruction_panel(images, reconstructions, columns: int = 10) -> Figure:
    """Images, and below each what the model drew of it.

    Args:
        images: (B, C, H, W) in [0, 1].
        reconstructions: (B, C, H, W) in [0, 1].
        columns: images in a row.

    Raises:
        ValueError: another shape, or values beyond [0, 1].
    """
    above, below = (
        channels_last(images, "B, C, H, W", "images"),
        channels_last(reconstructions, "B, C, H, W", "reconstructions"),
    )
    _alike(above, below, "images and reconstructions")
    if columns < 1:
        raise ValueError(f"a panel has at least 1 column, got {columns}")
    size, columns = above.shape[1:3], min(columns, len(above))
    grid = np.stack([_in_rows(above, columns), _in_rows(below, columns)], axis=1).reshape(
        -1, columns, *above.shape[1:]
    )
    gap = _gap(size, 0.07)
    tops = _offsets(len(grid), size[0], gap, group=2, wide=_gap(size, 0.25))
    lefts = _offsets(columns, size[1], gap)
    figure, axes = _lay_out(grid, tops, lefts, left=0.5)
    for row, top in enumerate(tops):
        name = "drawing" if row % 2 else "image"
        axes.annotate(
            name,
            (0, top + size[0] / 2),
            (-2, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
        )
    return figure


@styled
def interpolation_panel(rows, ends: str = "reconstructions of two images") -> Figure:
    """Rows of pictures that go from one image to another; the ends are framed and set apart.

    Args:
        rows: (R, S, C, H, W) in [0, 1], S at least 2: a row of S pictures for each pair of ends.
        ends: what the first and the last of a row are, for the caption.

    Raises:
        ValueError: another shape, fewer than two pictures in a row, or values beyond [0, 1].
    """
    cells = channels_last(rows, "R, S, C, H, W", "rows")
    (count, steps), size = cells.shape[:2], cells.shape[2:4]
    if steps < 2:
        raise ValueError(
            f"an interpolation has two ends at least, got rows of shape {cells.shape} (channels last)"
        )
    gap, apart = _gap(size, 0.07), _gap(size, 0.25)
    tops, lefts = _offsets(count, size[0], _gap(size, 0.14)), _offsets(steps, size[1], gap)
    lefts[1:] += apart - gap
    lefts[-1] += apart - gap if steps > 2 else 0
    figure, axes = _lay_out(
        cells, tops, lefts, f"Framed: {ends}; between them, the way from one to the other."
    )
    for top in tops:
        for left in lefts[[0, -1]]:
            _frame(axes, left, top, size, BLUE)
    return figure


@styled
def steps_panel(
    canvases, write_windows: Window | None = None, write_patch: int | None = None, columns: int = 10
) -> Figure:
    """How drawings came about, as the paper's first figure: a row for each image, a column for each
    step shown.

    The red rectangle is where that step wrote, its border the thicker the sharper the filters; a
    side beyond the view is dotted along its edge.

    Args:
        canvases: (B, T, C, H, W) in [0, 1], the sigmoid of c_1 .. c_T.
        write_windows: fields of shape (B, T); None for a model that writes without attention.
        write_patch: side of the patch that is written.
        columns: at most so many steps, evenly spaced, always the first and the last.

    Raises:
        ValueError: another shape, values beyond [0, 1], or fewer than two columns.
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    count, steps, height, width, channels = pictures.shape
    check_windows(write_windows, write_patch, (count, steps), "write_windows")
    if columns < 2:
        raise ValueError(
            f"a panel shows the first step and the last, so at least 2 columns, got {columns}"
        )
    shown = spread(steps, columns)
    view = view_of(height, width, margin=0.06 if write_windows else 0.0)
    share = (view[3] - view[1]) / (view[2] - view[0])
    gap, head, foot = 0.06, 0.22, 0.02  # inches
    cell = min((WIDTH + gap) / len(shown), (_PAGE - head) / count / share, 1.1)
    row = (cell - gap) * share + gap
    size = (max(len(shown) * cell - gap, 0.5), head + count * row - gap + foot)
    figure = Figure(figsize=size)
    for n in range(count):
        for column, t in enumerate(shown):
            bottom = size[1] - head - n * row - (row - gap)
            place = (
                column * cell / size[0],
                bottom / size[1],
                (cell - gap) / size[0],
                (row - gap) / size[1],
            )
            axes = bare(figure.add_axes(place))
            show_image(axes, pictures[n, t].squeeze(-1) if channels == 1 else pictures[n, t], view)
            axes.set_facecolor("0.8")  # a canvas starts from the usual grey
            if write_windows is not None and write_patch is not None:
                WindowOutline(axes, write_patch, view, colour=RED, scale=0.6).move(
                    pick(write_windows, n, t)
                )
            if n == 0:
                axes.set_title(f"step {t + 1}" if column == 0 else str(t + 1), pad=3)
    return figure


# --- where the nats go ---


def _kl_of(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Updates (rows,) and KL (T, rows), in the order of the updates; of an update that is there
    twice, the later row.
    """
    names = [
        name for name in frame.columns if str(name).startswith("kl_") and str(name)[3:].isdigit()
    ]
    wanted = [f"kl_{t + 1}" for t in range(len(names))]
    if not names or set(names) != set(wanted) or "step" not in frame.columns:
        raise ValueError(
            f"the frame must have the columns step and kl_1 .. kl_T, got {', '.join(map(str, frame.columns))}"
        )
    rows = frame.dropna(subset=wanted).drop_duplicates("step", keep="last").sort_values("step")
    if rows.empty:
        raise ValueError("there is nothing to plot: the frame has no row with every kl_1 .. kl_T")
    return rows["step"].to_numpy(dtype=float), rows[wanted].to_numpy(dtype=float).T


@styled
def kl_map(frame: pd.DataFrame) -> Figure:
    """When in training the model learned to use which step: KL of each step of the drawing against
    the updates.

    Args: frame: a row for each evaluation, with ``step`` (updates) and ``kl_1`` .. ``kl_T`` (nats,
        mean over images).

    Returns: A map; each evaluation reaches half-way to its neighbours. The shades are for what
        comes after the first fifth of training; larger values before it share the last shade.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    updates, kl = _kl_of(frame)
    divisor, unit = count_unit(updates.max())
    if len(updates) == 1:
        edges = updates[[0, 0]] + np.array([-0.5, 0.5]) * divisor
    else:
        middles = (updates[1:] + updates[:-1]) / 2
        edges = np.array(
            [max(2 * updates[0] - middles[0], 0.0), *middles, 2 * updates[-1] - middles[-1]]
        )
    late = updates >= updates[0] + 0.2 * (updates[-1] - updates[0])
    top = max(float(kl[:, late].max()), 1e-9)
    figure = Figure(figsize=(5.0, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    levels = np.arange(len(kl) + 1) + 0.5
    shades = axes.pcolormesh(
        edges / divisor, levels, kl, cmap="viridis", vmin=0, vmax=top, rasterized=True
    )
    axes.set(
        xlabel=f"training updates{unit}",
        ylabel="step of the drawing",
        xlim=edges[[0, -1]] / divisor,
    )
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    if len(kl) == 1:
        axes.set_yticks([1])
    if len(updates) == 1:
        axes.set_xticks(updates / divisor, [f"{updates[0] / divisor:g}"])
    figure.colorbar(
        shades,
        ax=axes,
        label="KL of the step (nats)",
        extend="max" if kl.max() > top else "neither",
        fraction=0.06,
        pad=0.02,
    )
    return settle(figure)


@styled
def kl_per_step_bars(kl) -> Figure:
    """How much each step of the drawing tells about the image.

    Args:
        kl: (T,), KL of each step in nats, mean over images.

    Raises:
        ValueError: not a row of finite numbers.
    """
    kl = array(kl).astype(float)
    if kl.ndim != 1 or len(kl) == 0 or not np.isfinite(kl).all():
        raise ValueError(
            f"kl must be (T,), a finite number of nats for each step, got shape {kl.shape}"
        )
    figure = Figure(figsize=(4.5, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False, axis="x")
    axes.bar(np.arange(1, len(kl) + 1), kl, width=0.8, color=BLUE)
    axes.set(
        xlabel="step of the drawing", ylabel="KL of the step (nats)", xlim=(0.3, len(kl) + 0.7)
    )
    axes.set_ylim(bottom=min(0.0, kl.min()))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    if len(kl) == 1:
        axes.set(xticks=[1], xlim=(0, 2))
    axes.set_title(f"all steps: {kl.sum():.2f} nats", loc="right", weight="bold")
    return settle(figure)
