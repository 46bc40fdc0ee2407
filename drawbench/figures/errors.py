"""Test error against a condition, such as the number of clutter pieces."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from drawbench.figures.curves import log_if_wide
from drawbench.figures.style import (
    WIDTH,
    annotate,
    label_end,
    looks,
    separate_labels,
    settle,
    styled,
    with_notes,
)


@styled
def error_curve(
    frame: pd.DataFrame,
    xlabel: str,
    trained_at: float | None = None,
    notes: Sequence[str] = (),
    ylabel: str = "test error (%)",
) -> Figure:
    """Draw test error against a condition: a curve per name, labelled at its end.

    A curve is the mean over seeds; the seeds themselves are faint points. A single seed has its 95%
    interval over the test images instead.

    Args:
        frame: a row per measurement, with ``condition``, ``error``, ``low``, ``high`` (percent, 95%
            interval over the test images) and optionally ``name`` (of the curve), ``model`` (which
            chooses the colour), ``seed`` and ``panel`` (title of the panel that it belongs in).
        xlabel: what the condition is.
        trained_at: the condition of training, marked by a vertical line.
        notes: lines below the figure.
        ylabel: whose error it is.

    Raises:
        ValueError: if there are no rows.
    """
    if frame.empty:
        raise ValueError("there is nothing to plot: the frame of errors has no rows")
    for column, default in (("name", ""), ("seed", 0), ("panel", "")):
        frame = frame if column in frame else frame.assign(**{column: default})
    frame = frame if "model" in frame else frame.assign(model=frame["name"])
    panels = list(frame.groupby("panel", sort=False))
    wide = len(panels) > 1
    figure = with_notes(WIDTH if wide else 4.5, 3.2, notes)
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    curves = frame.drop_duplicates("name")
    styles = dict(zip(curves["name"], looks(curves["model"]), strict=True))
    log_if_wide(row[0], frame["error"])
    for axes, (title, rows) in zip(row, panels, strict=True):
        _draw_panel(axes, rows, styles)
        pad = 6.0 if trained_at is None else 14.0
        axes.set_title(str(title), loc="left", weight="bold", pad=pad)
        axes.set_xlabel(xlabel)
        if trained_at is not None:
            axes.axvline(trained_at, color="0.35", linewidth=0.9, linestyle=(0, (2, 2)), zorder=1.5)
            place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
            annotate(axes, "as trained", (trained_at, 1), (0, 1), **place)
    if row[0].get_yscale() == "log":
        least, lows = frame["error"].min(), frame["low"][frame["low"] > 0]
        lowest = min(least, max(lows.min(), 0.3 * least)) if len(lows) else least
        row[0].set_ylim(0.8 * lowest, min(100.0, 1.25 * frame["high"].max()))
    row[0].set_ylabel(ylabel)
    settle(figure)
    for axes in row:
        separate_labels(axes)
    return figure


def _draw_panel(axes: Axes, frame: pd.DataFrame, styles: Mapping[str, dict]) -> None:
    for name, rows in frame.groupby("name", sort=False):
        style = styles[name]
        mean = rows.groupby("condition")["error"].mean()
        if rows["seed"].nunique() > 1:
            axes.plot(rows["condition"], rows["error"], ".", color=style["color"], alpha=0.45)
        else:
            rows = rows.sort_values("condition")
            reach = [rows["error"] - rows["low"], rows["high"] - rows["error"]]
            bars = {"elinewidth": 0.7, "capsize": 0, "ecolor": style["color"], "alpha": 0.6}
            reach = np.clip(reach, 0, None)
            axes.errorbar(rows["condition"], rows["error"], reach, fmt="none", **bars)
        axes.plot(mean.index, mean, **style, linewidth=1.2)
        if name:
            label_end(axes, mean.index[-1], mean.iloc[-1], str(name), style["color"])
    values = sorted(frame["condition"].unique())
    whole = bool((frame["condition"] % 1 == 0).all())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if sum(len(f"{value:g}") for value in values) <= 24:  # that many digits fit side by side
        axes.set_xticks(values)
