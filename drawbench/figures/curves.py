"""Learning curves and the confusion matrix."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from drawbench.figures.style import BLUE, RED, WIDTH, annotate, array, settle, styled

REFERENCE_DASHES = ((0, (6, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 3)))
_TRAINING = {"color": RED, "linestyle": (0, (5, 2)), "marker": "s", "markersize": 2.5}
_VALIDATION = {"color": BLUE, "linestyle": "-", "marker": "o", "markersize": 2.5}
_FEW = 30  # points of a curve that get markers
_SHORT = 0.2  # of the usual interval between rows
_NO_ROWS = "there is nothing to plot: the metrics have no rows yet; wait for the first evaluation"


def count_unit(highest: float) -> tuple[float, str]:
    """Return what to count in, so that ticks have few digits: divisor and words."""
    if highest >= 2e6:
        return 1e6, " (millions)"
    return (1e3, " (thousands)") if highest >= 2e3 else (1.0, "")


def plain_log_ticks(axes: Axes, which: str = "y") -> None:
    """Make an axis logarithmic, with plain numbers 1, 2, 5, 10 ... at its ticks."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def log_if_wide(axes: Axes, numbers: Iterable[float]) -> None:
    """Make the y axis logarithmic if the values span more than a factor of five."""
    values = np.fromiter(numbers, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0 or values.min() <= 0:
        axes.set_ylim(bottom=0)
    elif values.max() / values.min() > 5:
        plain_log_ticks(axes)


def draw_references(axes: Axes, references: Mapping[str, float], unit: str = "%") -> None:
    """Draw horizontal lines with their names, each where the curves are farthest from it.

    Call it when the curves are drawn and the scales and limits of the axes are settled.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    across = np.linspace(0.0, 1.0, 201)  # everything in fractions of the axes
    heights = []
    for line in axes.lines:
        points = to_axes.transform(np.asarray(line.get_xydata(), float))
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 1:
            heights.append(np.interp(across, points[:, 0], points[:, 1], left=np.nan, right=np.nan))
    curves = np.array(heights or [np.full(across.shape, np.nan)])
    figure = axes.get_figure(root=True)
    assert figure is not None
    box, points_per_dot = axes.get_window_extent(), 72 / figure.dpi
    wide, high = points_per_dot * box.width, points_per_dot * box.height
    dashes = itertools.cycle(REFERENCE_DASHES)
    for (name, value), dash in zip(references.items(), dashes, strict=False):
        axes.axhline(value, color="0.35", linewidth=0.9, linestyle=dash, zorder=1.5)
        label = f"{name}: {value:.4g}{unit if unit == '%' else f' {unit}'}"
        length = TextPath((0, 0), label, size=7).get_extents().width / wide
        at = to_axes.transform((axes.get_xlim()[0], value))[1]

        def room(place: tuple[str, str], length: float = length, at: float = at) -> float:
            """Return the distance from the middle of the label to the nearest curve; below zero
            outside the axes, where titles are.
            """
            covered = across <= length if place[0] == "left" else across >= 1 - length
            middle = at + (6 if place[1] == "bottom" else -6) / high
            if not 5 / high <= middle <= 1 - 5 / high:
                return -1.0
            return float(np.nanmin(np.abs(curves[:, covered] - middle), initial=12 / high))

        side, above = max(itertools.product(("right", "left"), ("bottom", "top")), key=room)
        place = (0.01 if side == "left" else 0.99, value)
        offset, coordinates = (0, 2 if above == "bottom" else -2), axes.get_yaxis_transform()
        annotate(axes, label, place, offset, xycoords=coordinates, va=above, ha=side)


def _draw(axes: Axes, x, y, line: Mapping[str, Any], label: str = "") -> None:
    """Draw a curve without its missing values, with markers where it has few points."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    present = np.isfinite(y)
    style = dict(line) if present.sum() <= _FEW else {**line, "marker": None}
    axes.plot(x[present], y[present], **style, label=label, clip_on=False)


def _star(axes: Axes, x, y, unit: str) -> None:
    """Mark the lowest point and name it above the axes."""
    best = int(np.nanargmin(y))
    style: dict[str, Any] = {"marker": "*", "markersize": 9, "color": "black", "clip_on": False}
    axes.plot(x[best], y[best], zorder=5, **style)
    axes.set_title(f"\N{BLACK STAR} best: {y[best]:.2f}{unit}", loc="right", weight="bold")


def _settled(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return metrics without training means over a small part of the usual interval.

    Where the length is no multiple of the interval, the last mean is over a few updates and would
    end a curve in a jump.
    """
    intervals = metrics["images_seen"].diff().fillna(metrics["images_seen"])
    short = intervals < _SHORT * intervals.median()
    means = metrics.filter(regex="^train_").mask(short)
    return metrics.assign(**means)


@styled
def learning_curves(metrics: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Show how a training went: loss, learning rate and errors against the images seen.

    Args:
        metrics: a row per evaluation, with ``images_seen``, ``train_loss`` (nats),
            ``validation_error`` (percent), ``learning_rate`` and optionally ``train_error``
            (percent); missing values are skipped.
        references: name -> error in percent, drawn as horizontal lines.

    Returns:
        Three panels; error and loss on a log axis where they span more than a factor of five.

    Raises:
        ValueError: if there are no rows.
    """
    if metrics.empty:
        raise ValueError(_NO_ROWS)
    metrics = _settled(metrics)
    divisor, unit = count_unit(metrics["images_seen"].max())
    x = metrics["images_seen"].to_numpy(float) / divisor
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    places = figure.add_gridspec(2, 2, height_ratios=(3, 1), width_ratios=(1, 1.3))
    loss, rate = figure.add_subplot(places[0, 0]), figure.add_subplot(places[1, 0])
    error = figure.add_subplot(places[:, 1])
    _draw(loss, x, metrics["train_loss"], _TRAINING)
    _draw(rate, x, metrics["learning_rate"], {"color": "0.3"})
    train = metrics.get("train_error", pd.Series(np.nan, index=metrics.index)).to_numpy(float)
    valid = metrics["validation_error"].to_numpy(float)
    if np.isfinite(train).any():
        _draw(error, x, train, _TRAINING, "training")
    _draw(error, x, valid, _VALIDATION, "validation")
    for axes in (loss, rate, error):
        axes.set_xlim(0, 1.02 * x.max())
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=bool(x.max() >= 4)))
    log_if_wide(loss, metrics["train_loss"])
    loss.set(ylabel="training loss (nats)")
    loss.tick_params(labelbottom=False)
    rate.set(ylabel="learning\nrate", xlabel=f"images seen{unit}")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    rate.yaxis.set_major_locator(MaxNLocator(2))
    rate.yaxis.get_offset_text().set_fontsize(6)
    loss.sharex(rate)
    log_if_wide(error, [*valid, *train, *references.values()])
    if np.isfinite(valid).any():
        _star(error, x, valid, "%")
        draw_references(error, references)
    if len(error.get_legend_handles_labels()[0]) > 1:
        error.set_title("")
        error.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    error.set(ylabel="error (%)", xlabel=f"images seen{unit}")
    return settle(figure)


def limits_of_the_end(
    x: np.ndarray, curves: Iterable[np.ndarray], keep: Iterable[float] = ()
) -> tuple[float, float] | None:
    """Return y limits for what follows the first fifth, and ``keep``: the steep start would flatten
    all the rest.

    Args:
        x: (rows,), ascending.
        curves: (rows,) each; missing values are skipped.

    Returns:
        Bottom and top; None without values.
    """
    late = x >= x[0] + 0.2 * (x[-1] - x[0])
    values = np.concatenate([*(curve[late] for curve in curves), np.fromiter(keep, dtype=float)])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return None
    low, high = float(values.min()), float(values.max())
    space = max(0.08 * (high - low), 0.005 * abs(high), 1e-3)
    return low - space, high + space


@styled
def generator_curve(metrics: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Show how the training of a generator went: the bound and its two terms.

    Args:
        metrics: a row per evaluation, with ``images_seen``, ``train_bound``, ``validation_bound``,
            ``validation_reconstruction`` and ``validation_kl`` (nats per image, lower is better);
            missing values are skipped.
        references: name -> bound in nats, drawn as horizontal lines.

    Returns:
        Three panels: bound, reconstruction, KL. The first two end above at what came after the
        first fifth of training.

    Raises:
        ValueError: if there are no rows or a column is missing.
    """
    terms = ["train_bound", "validation_bound", "validation_reconstruction", "validation_kl"]
    if missing := [name for name in ("images_seen", *terms) if name not in metrics.columns]:
        columns = ", ".join(map(str, metrics.columns))
        raise ValueError(f"the metrics lack {', '.join(missing)}; they have {columns}")
    if metrics.empty:
        raise ValueError(_NO_ROWS)
    metrics = _settled(metrics.sort_values("images_seen"))
    divisor, unit = count_unit(metrics["images_seen"].max())
    x = metrics["images_seen"].to_numpy(float) / divisor
    train, valid, missed, kl = (metrics[name].to_numpy(float) for name in terms)
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    places = figure.add_gridspec(2, 2, width_ratios=(1.3, 1))
    bound = figure.add_subplot(places[:, 0])
    reconstruction, cost = figure.add_subplot(places[0, 1]), figure.add_subplot(places[1, 1])
    _draw(bound, x, train, _TRAINING, "training")
    _draw(bound, x, valid, _VALIDATION, "validation")
    _draw(reconstruction, x, missed, _VALIDATION)
    _draw(cost, x, kl, _VALIDATION)
    parts = ((bound, (train, valid), references.values()), (reconstruction, (missed,), ()))
    for axes, curves, keep in parts:
        for line in axes.lines:
            line.set_clip_on(True)
        if limits := limits_of_the_end(x, curves, keep):
            axes.set_ylim(limits)
    for axes in (bound, reconstruction, cost):
        axes.set_xlim(0, 1.03 * x[-1])
    if np.isfinite(kl).any():
        cost.set_ylim(0, 1.15 * max(np.nanmax(kl), 1e-9))
    if np.isfinite(valid).any():
        draw_references(bound, references, "nats")
        _star(bound, x, valid, " nats")
    bound.legend(loc="upper right")
    bound.set(ylabel="bound (nats per image)", xlabel=f"images seen{unit}")
    reconstruction.set(ylabel="reconstruction\n(nats)")
    reconstruction.set_title("terms of the validation bound", loc="left")
    reconstruction.sharex(cost)
    reconstruction.tick_params(labelbottom=False)
    cost.set(ylabel="KL\n(nats)", xlabel=f"images seen{unit}")
    figure.align_ylabels([reconstruction, cost])
    return settle(figure)


@styled
def confusion(matrix, names: Sequence[str] | None = None) -> Figure:
    """Show which classes are taken for which.

    The shade is the rate within a true class, on a scale of the errors alone: the diagonal, ten
    times any error, would leave everything else white. Diagonal cells are outlined instead.

    Args:
        matrix: (K, K) counts, row = true class, column = answer, as in scikit-learn.
        names: of the classes; 0 .. K-1 by default.

    Raises:
        ValueError: unless the matrix is square with a name per class.
    """
    matrix = array(matrix)
    classes = len(matrix)
    names = [str(n) for n in range(classes)] if names is None else list(names)
    if matrix.shape != (classes, classes) or len(names) != classes:
        got = f"shape {matrix.shape} and {len(names)} names"
        raise ValueError(f"a confusion matrix is square with a name for each row, got {got}")
    rates = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(classes, dtype=bool), np.nan, rates)
    top = max(np.nanmax(errors, initial=0), 1e-9)

    figure = Figure(figsize=(5.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    shades = axes.imshow(errors, cmap="Blues", vmin=0, vmax=top)
    size = float(np.clip(60 / classes, 2, 6))
    for true, answer in np.ndindex(classes, classes):
        count, rate = matrix[true, answer], rates[true, answer]
        if not count and true != answer:
            continue
        text = axes.text(answer, true, f"{count}\n{rate:.1f}%", ha="center", va="center")
        text.set(fontsize=size, color="white" if true != answer and rate > 0.55 * top else "black")
        if true == answer:
            text.set(weight="bold")
            corner = (answer - 0.5, true - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", zorder=3))
    turn = 90 if max(map(len, names)) > 3 else 0
    axes.set_xticks(range(classes), names, rotation=turn, parse_math=False)
    axes.set_yticks(range(classes), names, parse_math=False)
    axes.set(xlabel="answer", ylabel="true class")
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="0.8", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    total = int(matrix.sum())
    wrong = total - int(np.trace(matrix))
    axes.set_title(f"{wrong} errors in {total} images; shares are of the row")
    label = "taken for another class (% of the true class)"
    figure.colorbar(shades, ax=axes, label=label, fraction=0.045, pad=0.02)
    return settle(figure)
