"""Curves and the confusion matrix."""

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

from drawbench.figures.style import (
    BLUE,
    LINES,
    WIDTH,
    array,
    legend_below,
    legend_height,
    lines,
    settle,
    styled,
)

_REFERENCE_DASHES = ((0, (6, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 3)))


def count_unit(largest: float) -> tuple[float, str]:
    """What to count in, so that ticks have few digits: divisor and words."""
    if largest >= 2e6:
        return 1e6, " (millions)"
    return (1e3, " (thousands)") if largest >= 2e3 else (1.0, "")


def _log_where_it_helps(axes: Axes, numbers: Iterable[float]) -> None:
    """A log axis where the values span more than a factor of five, with plain numbers at its ticks."""
    values = np.fromiter(numbers, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0 or values.min() <= 0:
        axes.set_ylim(bottom=0)
        return
    if values.max() / values.min() <= 5:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_references(axes: Axes, references: Mapping[str, float], unit: str = "%") -> None:
    """Horizontal lines with their names, each name above or below its line and at the end where the
    curves are farthest away.

    Call it when the curves are drawn and the scales and limits of the axes are settled.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    across = np.linspace(0.0, 1.0, 201)  # everything in fractions of the axes
    heights = []
    for line in axes.lines:
        points = to_axes.transform(
            np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float)
        )
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 1:
            heights.append(np.interp(across, points[:, 0], points[:, 1], left=np.nan, right=np.nan))
    curves = np.array(heights or [np.full(across.shape, np.nan)])
    box, points_in = axes.get_window_extent(), 72 / axes.figure.dpi
    wide, high = points_in * box.width, points_in * box.height
    for (name, value), dashes in zip(
        references.items(), _REFERENCE_DASHES * len(references), strict=False
    ):
        axes.axhline(value, color="0.35", linewidth=0.9, linestyle=dashes, zorder=1.5)
        label = f"{name}: {value:.4g} {unit}"
        length, at = (
            TextPath((0, 0), label, size=7).get_extents().width / wide,
            to_axes.transform((axes.get_xlim()[0], value))[1],
        )

        def room(place: tuple[str, str], length: float = length, at: float = at) -> float:
            """How far the nearest curve is from the middle of the name, up to what is far enough."""
            covered = across <= length if place[0] == "left" else across >= 1 - length
            middle = at + (6 if place[1] == "bottom" else -6) / high
            return float(np.nanmin(np.abs(curves[:, covered] - middle), initial=12 / high))

        side, above = max(itertools.product(("left", "right"), ("bottom", "top")), key=room)
        axes.annotate(label, (0.01 if side == "left" else 0.99, value), (0, 2 if above == "bottom" else -2), va=above, ha=side,
                      xycoords=axes.get_yaxis_transform(), textcoords="offset points", fontsize=7, color="0.2")  # fmt: skip


@styled
def learning_curves(metrics: pd.DataFrame, references: Mapping[str, float] | None = None) -> Figure:
    """How a run went: training loss, learning rate and validation error against the images seen.

    Args: metrics: one row for each evaluation, with ``images_seen``, ``train_loss`` (nats),
        ``validation_error`` (percent) and
            ``learning_rate``; missing values are skipped.
        references: name -> error in percent, drawn as horizontal lines, such as chance or the
            paper's result.

    Returns:
        Two panels; error and loss on a log axis where they span more than a factor of five.

    Raises:
        ValueError: no rows.
    """
    if metrics.empty:
        raise ValueError(
            "there is nothing to plot: the metrics have no rows yet, so wait for the first evaluation"
        )
    divisor, unit = count_unit(metrics["images_seen"].max())
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    places = figure.add_gridspec(2, 2, height_ratios=(3, 1), width_ratios=(1, 1.15))
    loss, rate, error = (
        figure.add_subplot(places[where]) for where in (np.s_[0, 0], np.s_[1, 0], np.s_[:, 1])
    )

    for axes, column in (
        (loss, "train_loss"),
        (rate, "learning_rate"),
        (error, "validation_error"),
    ):
        rows = metrics.dropna(subset=[column])
        few = len(rows) <= 30
        axes.plot(
            rows["images_seen"] / divisor,
            rows[column],
            color=BLUE,
            marker="o" if few else None,
            markersize=2.5,
            clip_on=False,
        )
        axes.set_xlim(left=0)
    _log_where_it_helps(loss, metrics["train_loss"])
    loss.set(ylabel="training loss (nats)")
    loss.tick_params(labelbottom=False)
    rate.set(ylabel="learning\nrate", xlabel=f"images seen{unit}")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    rate.yaxis.set_major_locator(MaxNLocator(2))
    rate.yaxis.get_offset_text().set_fontsize(6)
    loss.sharex(rate)

    rows = metrics.dropna(subset=["validation_error"])
    if len(rows):
        x, y = rows["images_seen"].to_numpy() / divisor, rows["validation_error"].to_numpy()
        best = int(np.argmin(y))
        error.plot(
            x[best], y[best], marker="*", markersize=9, color="black", zorder=5, clip_on=False
        )
        error.set_title(f"\N{BLACK STAR} best: {y[best]:.2f} %", loc="right", weight="bold")
    _log_where_it_helps(error, [*metrics["validation_error"], *(references or {}).values()])
    if len(rows):
        draw_references(error, references or {})
    error.set(ylabel="validation error (%)", xlabel=f"images seen{unit}")
    return settle(figure)


def limits_of_the_end(
    x: np.ndarray, curves: Iterable[np.ndarray], keep: Iterable[float] = ()
) -> tuple[float, float] | None:
    """Limits that show what comes after the first fifth, and ``keep``: the steep start would leave
    a flat line of all the rest.

    Args:
        x: (rows,), ascending.
        curves: (rows,) each; missing values are skipped.

    Returns:
        Bottom and top; None where nothing is there to show.
    """
    late = x >= x[0] + 0.2 * (x[-1] - x[0])
    shown = np.concatenate([*(curve[late] for curve in curves), np.fromiter(keep, dtype=float)])
    shown = shown[np.isfinite(shown)]
    if len(shown) == 0:
        return None
    low, high = float(shown.min()), float(shown.max())
    space = max(0.08 * (high - low), 0.005 * abs(high), 1e-3)
    return low - space, high + space


@styled
def generator_curve(metrics: pd.DataFrame, references: Mapping[str, float] | None = None) -> Figure:
    """How the training of a generator went: the bound, and apart its two terms, against the images
    seen.

    Args: metrics: one row for each evaluation, with ``images_seen``, ``train_bound``,
        ``validation_bound``,
            ``validation_reconstruction`` and ``validation_kl`` (nats per image, lower is better);
            missing values are skipped.
        references: name -> bound in nats, drawn as horizontal lines, such as a published result.

    Returns: Three panels: bound, reconstruction, KL. The first two are cut above to what came after
        the first fifth of training.

    Raises:
        ValueError: no rows, or a column is missing.
    """
    columns = (
        "images_seen",
        "train_bound",
        "validation_bound",
        "validation_reconstruction",
        "validation_kl",
    )
    if missing := [name for name in columns if name not in metrics.columns]:
        raise ValueError(
            f"the metrics lack {', '.join(missing)}; they have {', '.join(map(str, metrics.columns))}"
        )
    if metrics.empty:
        raise ValueError(
            "there is nothing to plot: the metrics have no rows yet, so wait for the first evaluation"
        )
    metrics = metrics.sort_values("images_seen")
    divisor, unit = count_unit(metrics["images_seen"].max())
    x = metrics["images_seen"].to_numpy(dtype=float) / divisor
    train, valid, missed, kl = (metrics[name].to_numpy(dtype=float) for name in columns[1:])
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    places = figure.add_gridspec(2, 2, width_ratios=(1.3, 1))
    bound, reconstruction, cost = (
        figure.add_subplot(places[where]) for where in (np.s_[:, 0], np.s_[0, 1], np.s_[1, 1])
    )

    def draw(axes: Axes, y: np.ndarray, line: Mapping[str, Any], label: str = "") -> None:
        there = np.isfinite(y)
        few = there.sum() <= 30
        axes.plot(x[there], y[there], color=line["color"], linestyle=line["linestyle"], label=label,
                  marker=line["marker"] if few else None, markersize=2.5)  # fmt: skip
        axes.set_xlim(0, 1.03 * x[-1])

    draw(bound, train, LINES[1], "training")
    draw(bound, valid, LINES[0], "validation")
    draw(reconstruction, missed, LINES[0])
    draw(cost, kl, LINES[0])
    for axes, curves, keep in (
        (bound, (train, valid), (references or {}).values()),
        (reconstruction, (missed,), ()),
    ):
        if limits := limits_of_the_end(x, curves, keep):
            axes.set_ylim(limits)
    cost.set_ylim(bottom=0)
    if np.isfinite(valid).any():
        draw_references(bound, references or {}, "nats")
        best = int(np.nanargmin(valid))
        bound.plot(
            x[best], valid[best], marker="*", markersize=9, color="black", zorder=5, clip_on=False
        )
        bound.set_title(f"\N{BLACK STAR} best: {valid[best]:.2f} nats", loc="right", weight="bold")
    bound.legend(loc="upper right")
    bound.set(ylabel="bound (nats per image)", xlabel=f"images seen{unit}")
    reconstruction.set(ylabel="reconstruction\n(nats)")
    reconstruction.set_title("the bound's two terms, validation", loc="left")
    reconstruction.sharex(cost)
    reconstruction.tick_params(labelbottom=False)
    cost.set(ylabel="KL\n(nats)", xlabel=f"images seen{unit}")
    figure.align_ylabels([reconstruction, cost])
    return settle(figure)


@styled
def error_curve(
    frame: pd.DataFrame,
    xlabel: str,
    trained_at: float | None = None,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Test error against a condition, such as the number of clutter pieces.

    Args: frame: columns ``condition``, ``error``, ``low``, ``high`` (percent, 95 % interval) and
        optionally ``model``. xlabel: what the condition is. trained_at: the condition of training,
        marked by a vertical line. references: name -> error in percent, drawn as horizontal lines.

    Raises:
        ValueError: no rows.
    """
    if frame.empty:
        raise ValueError("there is nothing to plot: the frame of errors has no rows")
    groups = list(frame.groupby("model", sort=False)) if "model" in frame else [("", frame)]
    figure = Figure(
        figsize=(
            4.5,
            2.9 + (legend_height(str(name) for name, _ in groups) if len(groups) > 1 else 0),
        ),
        layout="constrained",
    )
    axes = figure.add_subplot()
    for (name, rows), line in zip(groups, lines(len(groups)), strict=True):
        rows = rows.sort_values("condition")
        spread = np.clip([rows["error"] - rows["low"], rows["high"] - rows["error"]], 0, None)
        axes.errorbar(
            rows["condition"], rows["error"], spread, **line, elinewidth=0.8, capsize=2, label=name
        )
    if trained_at is not None:
        axes.axvline(trained_at, color="0.35", linewidth=0.9, linestyle=(0, (2, 2)), zorder=1.5)
        axes.annotate("trained here", (trained_at, 1), (2, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
                      rotation=90, ha="left", va="top", fontsize=7, color="0.2")  # fmt: skip
    means = frame.groupby("condition")["error"].mean()
    _log_where_it_helps(axes, [*frame["error"], *frame["high"], *(references or {}).values()])
    if (
        axes.get_yscale() == "log"
    ):  # an interval of few seeds may reach down to 0, which is out of sight here
        shown = min([*frame["error"], *(references or {}).values()])
        axes.set_ylim(bottom=0.8 * max(shown / 2, min(frame["low"].min(), shown)))
    draw_references(axes, references or {})
    axes.set(xlabel=xlabel, ylabel="test error (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=bool((frame["condition"] % 1 == 0).all())))
    if len(means) <= 12:
        axes.set_xticks(means.index)
    if len(groups) > 1:
        legend_below(figure, axes)
    return settle(figure)


@styled
def confusion(matrix, names: Sequence[str] | None = None) -> Figure:
    """Which classes are taken for which.

    Shade is the rate within a true class, on a scale of the errors alone: the diagonal, ten times
    any error, would leave everything else white. Diagonal cells are outlined instead and give the
    share that is right.

    Args:
        matrix: (K, K) counts, row = true class, column = answer, as scikit-learn has it.
        names: of the classes; 0 .. K-1 if not given.

    Raises:
        ValueError: not square, or not as many names as classes.
    """
    matrix = array(matrix)
    classes = len(matrix)
    names = [str(n) for n in range(classes)] if names is None else list(names)
    if matrix.shape != (classes, classes) or len(names) != classes:
        raise ValueError(
            f"a confusion matrix is square with a name for each row, got shape {matrix.shape} and {len(names)} names"
        )
    rates = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(classes, dtype=bool), np.nan, rates)
    top = max(np.nanmax(errors, initial=0), 1e-9)

    figure = Figure(figsize=(5.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    shades = axes.imshow(errors, cmap="Blues", vmin=0, vmax=top)
    for true in range(classes):
        for answer in range(classes):
            count, rate = matrix[true, answer], rates[true, answer]
            if true == answer:
                axes.text(
                    answer,
                    true,
                    f"{count}\n{rate:.1f} %",
                    ha="center",
                    va="center",
                    fontsize=6,
                    weight="bold",
                )
                axes.add_patch(
                    Rectangle(
                        (answer - 0.5, true - 0.5),
                        1,
                        1,
                        fill=False,
                        edgecolor="black",
                        linewidth=1,
                        zorder=3,
                    )
                )
            elif count:
                colour = "white" if rate > 0.55 * top else "black"
                axes.text(
                    answer,
                    true,
                    f"{count}\n{rate:.1f} %",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=colour,
                )
    axes.set(xticks=range(classes), yticks=range(classes), xticklabels=names, yticklabels=names)
    axes.set(xlabel="answer", ylabel="true class")
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="0.8", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_title(
        f"{int(matrix.sum() - np.trace(matrix))} errors in {int(matrix.sum())} images; shares are of the row"
    )
    figure.colorbar(
        shades,
        ax=axes,
        label="taken for another class (% of the true class)",
        fraction=0.045,
        pad=0.02,
    )
    return settle(figure)
