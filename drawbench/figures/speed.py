"""How cost grows."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from drawbench.figures.style import LINES, WIDTH, settle, styled

# The floors in grey: they are what the others are held against.
_LOOKS: dict[tuple[str, str], dict[str, Any]] = {
    ("plain", "float32"): LINES[2],
    ("fast", "float32"): LINES[0],
    ("fast", "bfloat16"): LINES[1],
    ("floor", "float32"): {"color": "0.45", "linestyle": (0, (4, 2)), "marker": None},
    ("floor", "bfloat16"): {"color": "0.45", "linestyle": (0, (1, 1.5)), "marker": None},
    ("render", "uint8"): LINES[0],
}
_WORDS = {
    "glimpses": "steps $T$",
    "batch": "images in a batch",
    "canvas": "side of the image (pixels)",
    "threads": "threads",
    "processes": "processes",
}
_SPACE = 7.5  # points between neighbouring labels
_SPAN = 8.0  # the least that a vertical axis spans, top over bottom: what hardly varies looks so


@styled
def growth(frame: pd.DataFrame, along: str) -> Figure:
    """Time for an image, and peak memory, against what they grow with; logarithmic axes, so that a
    power law is a straight line.

    Args: frame: rows of :func:`drawbench.bench.measure`: ``case``, ``work``, ``implementation``,
        ``precision``, ``images_per_second`` and
            optionally ``peak_mb``, and the column ``along``. Where there are ``canvas``,
            ``glimpses``, ``batch`` and ``attention``, the titles tell them.
        along: ``"glimpses"``, ``"batch"``, ``"canvas"``, ``"threads"`` or ``"processes"``.

    Returns:
        A column of panels for each piece of work of each case.

    Raises:
        ValueError: no rows.
    """
    if frame.empty:
        raise ValueError("there is nothing to plot: the frame of measurements has no rows")
    frame = frame.assign(milliseconds=1e3 / frame["images_per_second"])
    quantities = {"milliseconds": "time per image (ms)"}
    if "peak_mb" in frame:
        quantities["peak_mb"] = "memory at the peak (MB)"
    groups = list(frame.groupby(["case", "work"], sort=False))
    figure = Figure(
        figsize=(max(0.5, len(groups) / 2) * WIDTH, 0.4 + 1.9 * len(quantities)),
        layout="constrained",
    )
    panels = figure.subplots(len(quantities), len(groups), squeeze=False, sharex="col")
    for column, ((case, work), rows) in zip(panels.T, groups, strict=True):
        column[0].set_title(
            f"{case.partition('-')[0]}, {work}\n{_fixed(rows.iloc[0], along)}", loc="left"
        )
        for axes, quantity in zip(column, quantities, strict=True):
            _draw(axes, rows, along, quantity)
        column[-1].set_xlabel(_WORDS[along])
    for axes, words in zip(panels[:, 0], quantities.values(), strict=True):
        axes.set_ylabel(words)
    figure.align_ylabels(panels[:, 0])
    settle(figure)
    for axes in panels.flat:
        _spread(axes)
    return figure


def _fixed(row: pd.Series, along: str) -> str:
    """The sizes of a case that do not vary, in words."""
    words = {"canvas": "{0:g}x{0:g}", "glimpses": "$T$ = {0:g}", "batch": "batches of {0:g}"}
    facts = [
        text.format(row[name])
        for name, text in words.items()
        if name != along and pd.notna(row.get(name))
    ]
    attention = {
        "none": "no attention",
        "read": "reading with attention",
        "write": "writing with attention",
    }.get(row.get("attention"))
    return ", ".join([*facts, *([attention] if attention else [])])


def _draw(axes: Axes, rows: pd.DataFrame, along: str, quantity: str) -> None:
    """One panel: a line for each contender, with its name at its end."""
    for (implementation, precision), some in rows.groupby(
        ["implementation", "precision"], sort=False
    ):
        some = some.dropna(subset=[quantity]).sort_values(along)
        if some.empty:
            continue
        look = _LOOKS[implementation, precision]
        axes.plot(some[along], some[quantity], **look)
        end = (some[along].iloc[-1], some[quantity].iloc[-1])
        axes.annotate(f"{implementation}, {precision}", end, (5, 0), textcoords="offset points", va="center", fontsize=7,
                      color=look["color"])  # fmt: skip
    axes.set(xscale="log", yscale="log")
    values = sorted(rows[along].unique())
    axes.xaxis.set(
        major_locator=FixedLocator(values),
        major_formatter=FuncFormatter(lambda value, _: f"{value:g}"),
    )
    axes.xaxis.set(minor_locator=NullLocator())
    low, high = axes.get_ylim()
    widen = max(1.0, (_SPAN * low / high) ** 0.5)
    axes.set_ylim(low / widen, high * widen)
    axes.yaxis.set(
        major_locator=LogLocator(subs=(1, 2, 5)),
        major_formatter=FuncFormatter(lambda value, _: f"{value:g}"),
    )
    axes.yaxis.set_minor_formatter(NullFormatter())


def _spread(axes: Axes) -> None:
    """Move the names at the ends of lines up or down until none touches another; the layout must be
    settled.
    """
    names = sorted(
        (text for text in axes.texts if isinstance(text, Annotation)), key=lambda name: name.xy[1]
    )
    points = axes.transData.transform([name.xy for name in names])[:, 1] * 72 / axes.figure.dpi
    # Blocks of names at the places of their ends, on average; a block that would reach into the one
    # below joins it.
    blocks: list[list[float]] = []
    for number, point in enumerate(points):
        blocks.append([point - number * _SPACE])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            above = blocks.pop()
            blocks[-1] += above
    places = [np.mean(block) for block in blocks for _ in block]
    for number, (name, point, place) in enumerate(zip(names, points, places, strict=True)):
        name.xyann = (5, place + number * _SPACE - point)
