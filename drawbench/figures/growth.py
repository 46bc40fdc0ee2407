"""How a training step grows with its sizes."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from drawbench.figures.style import BLUE, ORANGE, WIDTH, annotate, styled

AXES = {
    "glimpses": "steps T",
    "batch": "images in a batch",
    "canvas": "pixels of the canvas",
    "processes": "processes, a batch each",
}


@styled
def growth_panels(rows: pd.DataFrame) -> Figure:
    """Draw time and peak memory of a training step against each size.

    Args:
        rows: of :func:`drawbench.bench.growth.measure`, for one case and precision.

    Returns:
        Above, milliseconds with their range over the rounds, and below, megabytes; each with the
        straight line through the points (for processes, that through the first, which is flat).
    """
    figure = Figure((WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(2, len(AXES), sharex="col", sharey="row")
    for column, (axis, label) in enumerate(AXES.items()):
        part = rows[rows["axis"] == axis]
        values, peaks = (part[name].to_numpy(float) for name in ("value", "peak_mb"))
        times, memory = panels[:, column]
        low, middle, high = (
            1e3 * part[name].to_numpy(float) for name in ("seconds_low", "seconds", "seconds_high")
        )
        _line(times, values, middle, flat=axis == "processes")
        times.errorbar(values, middle, [middle - low, high - middle], fmt="o", color=BLUE)
        worst = part["off_percent"].abs().max()
        annotate(times, f"within {worst:.0f}% of the line", (0, 1), (2, -2), xycoords="axes "
                 "fraction", va="top")  # fmt: skip
        if axis == "processes":
            memory.set_axis_off()
            times.tick_params(labelbottom=True)
            times.set(xlabel=label, xticks=values)
        else:
            _line(memory, values, peaks)
            memory.plot(values, peaks, "o", color=ORANGE)
            memory.set(xlabel=label)
        times.set(xlim=(0, 1.08 * values.max()))
    panels[0, 0].set(ylabel="ms per training step", ylim=(0, None))
    panels[1, 0].set(ylabel="peak MB of a step", ylim=(0, None))
    return figure


def _line(axes, values, heights, flat: bool = False) -> None:
    ends = np.array([0, 1.08 * values.max()])
    weights = 1 / np.maximum(heights, heights.max() * 1e-3)
    line = [0, heights[0]] if flat else np.polyfit(values, heights, 1, w=weights)
    axes.plot(ends, np.polyval(line, ends), color="0.6", linewidth=0.8, zorder=1)
