"""Figures that hold several models against each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from drawbench.figures.curves import count_unit, draw_references, limits_of_the_end
from drawbench.figures.style import STYLE, bare, legend_below, legend_height, lines, settle, styled

LARGEST = 1 << 24  # dots of a picture from a run folder


@styled
def bound_curves(
    metrics: Mapping[str, pd.DataFrame], references: Mapping[str, float] | None = None
) -> Figure:
    """The validation bound of generators against the updates of their training.

    Args: metrics: name -> a row for each validation, with ``step`` and ``validation_bound`` (nats);
        missing values are skipped. references: name -> bound in nats, drawn as horizontal lines,
        such as published results.

    Returns:
        One panel, cut above to what came after the first fifth of training.

    Raises:
        ValueError: no model, or one without rows.
    """
    curves = {
        name: frame.dropna(subset=["validation_bound"]).sort_values("step")
        for name, frame in metrics.items()
    }
    if not curves or any(frame.empty for frame in curves.values()):
        raise ValueError("there is nothing to plot: each model needs at least one validation")
    divisor, unit = count_unit(max(frame["step"].max() for frame in curves.values()))
    figure = Figure(figsize=(4.5, 2.9 + legend_height(curves)), layout="constrained")
    axes = figure.add_subplot()
    limits = []
    for (name, frame), line in zip(curves.items(), lines(len(curves)), strict=True):
        x, y = frame["step"].to_numpy(float) / divisor, frame["validation_bound"].to_numpy(float)
        axes.plot(x, y, **line, markevery=max(1, len(x) // 12), label=name)
        limits.append(limits_of_the_end(x, [y], (references or {}).values()))
    ends = np.array([limit for limit in limits if limit is not None])
    axes.set_ylim(ends[:, 0].min(), ends[:, 1].max())
    axes.set_xlim(left=0)
    draw_references(axes, references or {}, "nats")
    axes.set(xlabel=f"training updates{unit}", ylabel="validation bound (nats per image)")
    legend_below(figure, axes)
    return settle(figure)


@styled
def kl_lines(kl: Mapping[str, Sequence[float]]) -> Figure:
    """How much each step of the drawing tells about the image, for several generators.

    Args:
        kl: name -> KL of each step in nats, mean over images.

    Raises:
        ValueError: no model, or one without a step.
    """
    if not kl or any(len(steps) == 0 for steps in kl.values()):
        raise ValueError("there is nothing to plot: each model needs the KL of its steps")
    figure = Figure(figsize=(4.5, 2.4 + legend_height(kl)), layout="constrained")
    axes = figure.add_subplot()
    for (name, steps), line in zip(kl.items(), lines(len(kl)), strict=True):
        axes.plot(
            np.arange(1, len(steps) + 1),
            steps,
            **line,
            label=f"{name}, {sum(steps):.1f} nats in all",
        )
    axes.set_ylim(bottom=0)
    axes.set(xlabel="step of the drawing", ylabel="KL of the step (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    legend_below(figure, axes)
    return settle(figure)


@styled
def sheet(path: Path) -> Figure:
    """A picture from a run folder as a figure, dot for dot, so that it can be saved in every
    format.

    Raises:
        OSError: it cannot be read, or is not a PNG.
        ValueError: it has too many dots.
    """
    with Image.open(path, formats=("PNG",)) as file:
        if file.width * file.height > LARGEST:
            raise ValueError(f"{path} has {file.width}x{file.height} dots, too many for a page")
        dots = np.asarray(file.convert("RGB"))
    figure = Figure(
        figsize=(dots.shape[1] / STYLE["figure.dpi"], dots.shape[0] / STYLE["figure.dpi"])
    )
    bare(figure.add_axes((0, 0, 1, 1))).imshow(dots, aspect="auto", interpolation="none")
    return figure
