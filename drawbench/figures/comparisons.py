"""Figures that compare several generators."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from drawbench.figures.curves import (
    REFERENCE_DASHES,
    count_unit,
    limits_of_the_end,
    plain_log_ticks,
)
from drawbench.figures.style import (
    STYLE,
    WIDTH,
    bare,
    label_end,
    looks,
    separate_labels,
    settle,
    styled,
    with_notes,
)

MAX_PIXELS = 1 << 24  # of a picture from a run folder


@styled
def bound_curves(
    metrics: Mapping[str, pd.DataFrame],
    references: Mapping[str, float],
    models: Sequence[str],
    notes: Sequence[str] = (),
) -> Figure:
    """Draw the validation bound of generators against training updates.

    Args:
        metrics: name -> a row per validation, with ``step`` and ``validation_bound`` (nats);
            missing values are skipped.
        references: name -> bound in nats, drawn as horizontal lines, such as published results,
            with their names in the margin.
        models: the model of each curve, which chooses its colour.
        notes: lines below the figure.

    Returns:
        One panel, which ends above at what came after the first fifth of training.

    Raises:
        ValueError: if there is no model, or one without rows.
    """
    curves = {
        name: frame.dropna(subset=["validation_bound"]).sort_values("step")
        for name, frame in metrics.items()
    }
    if not curves or any(frame.empty for frame in curves.values()):
        raise ValueError("there is nothing to plot: each model needs at least one validation")
    divisor, unit = count_unit(max(frame["step"].max() for frame in curves.values()))
    figure = with_notes(WIDTH, 3.0, notes)
    axes = figure.add_subplot()
    limits = []
    for (name, frame), line in zip(curves.items(), looks(models), strict=True):
        x, y = frame["step"].to_numpy(float) / divisor, frame["validation_bound"].to_numpy(float)
        axes.plot(x, y, **line, markevery=max(1, len(x) // 12))
        label_end(axes, x[-1], y[-1], name, line["color"])
        limits.append(limits_of_the_end(x, [y], references.values()))
    ends = np.array(limits)
    axes.set_ylim(ends[:, 0].min(), ends[:, 1].max())
    axes.set_xlim(left=0)
    for (name, value), dash in zip(references.items(), cycle(REFERENCE_DASHES), strict=False):
        axes.axhline(value, color="0.35", linewidth=0.9, linestyle=dash, zorder=1.5)
        label_end(axes, axes.get_xlim()[1], value, f"{name}: {value:.2f}", "0.35")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set(xlabel=f"training updates{unit}", ylabel="validation bound (nats per image)")
    settle(figure)
    separate_labels(axes)
    return figure


@styled
def error_against_images(
    metrics: Mapping[str, Sequence[pd.DataFrame]], models: Sequence[str]
) -> Figure:
    """Draw the validation error of classifiers against the training images seen, on two log axes.

    Args:
        metrics: name -> of each seed, a row per validation with ``images_seen`` and
            ``validation_error`` (percent); missing values and errors of zero are skipped. The first
            seed has a strong line, the others faint ones.
        models: the model of each name, which chooses its colour.

    Raises:
        ValueError: if there is no model, or one without rows.
    """
    columns = ["images_seen", "validation_error"]
    curves = {}
    for name, frames in metrics.items():
        shown = [frame.loc[(frame[columns] > 0).all(axis=1), columns] for frame in frames]
        curves[name] = [frame for frame in shown if len(frame)]
    if not curves or not all(curves.values()):
        raise ValueError("there is nothing to plot: each model needs at least one validation")
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    plain_log_ticks(axes, "x")
    plain_log_ticks(axes, "y")
    for (name, frames), line in zip(curves.items(), looks(models), strict=True):
        for number, frame in enumerate(frames):
            x, y = frame.sort_values("images_seen").to_numpy(float).T / [[1e6], [1]]
            strength = {"linewidth": 0.7, "alpha": 0.45} if number else {"linewidth": 1.1}
            axes.plot(x, y, **line | {"marker": None} | strength)
            if number == 0:
                label_end(axes, x[-1], y[-1], name, line["color"])
    axes.set(xlabel="training images seen (million)", ylabel="validation error (%)")
    settle(figure)
    separate_labels(axes)
    return figure


@styled
def kl_lines(
    kl: Mapping[str, Sequence[float]], models: Sequence[str], notes: Sequence[str] = ()
) -> Figure:
    """Show how much each step of the drawing tells about the image, for several generators.

    Args:
        kl: name -> KL of each step in nats, mean over images.
        models: the model of each curve, which chooses its colour.
        notes: lines below the figure.

    Raises:
        ValueError: if there is no model, or one without steps.
    """
    if not kl or any(len(steps) == 0 for steps in kl.values()):
        raise ValueError("there is nothing to plot: each model needs the KL of its steps")
    figure = with_notes(WIDTH, 2.6, notes)
    axes = figure.add_subplot()
    for (name, steps), line in zip(kl.items(), looks(models), strict=True):
        axes.plot(np.arange(1, len(steps) + 1), steps, **line)
        label_end(axes, len(steps), steps[-1], f"{name}: {sum(steps):.1f} nats", line["color"])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="step of the drawing", ylabel="KL of the step (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    settle(figure)
    separate_labels(axes)
    return figure


@styled
def sheet(path: Path) -> Figure:
    """Return a picture from a run folder as a figure, pixel by pixel, to save in any format.

    Raises:
        OSError: if it cannot be read or is not a PNG.
        ValueError: if it has too many pixels.
    """
    with Image.open(path, formats=("PNG",)) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{path} has {file.width}x{file.height} pixels, too many for a page")
        pixels = np.asarray(file.convert("RGB"))
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(width / STYLE["figure.dpi"], height / STYLE["figure.dpi"]))
    bare(figure.add_axes((0, 0, 1, 1))).imshow(pixels, aspect="auto", interpolation="none")
    return figure
