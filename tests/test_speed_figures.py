"""The pictures of how cost grows."""

import math
from itertools import pairwise

import pandas as pd
import pytest

from drawbench import figures

CONTENDERS = [
    ("plain", "float32"),
    ("fast", "float32"),
    ("fast", "bfloat16"),
    ("floor", "float32"),
    ("floor", "bfloat16"),
]


def some_rows(
    speed=lambda number, value: 100.0 / value, cases=("classifier-paper", "generator-no-attention")
) -> pd.DataFrame:
    """Three numbers of glimpses of every contender."""
    rows = []
    for case in cases:
        for number, (implementation, precision) in enumerate(CONTENDERS):
            for value in (2, 4, 8):
                row = {
                    "case": case,
                    "work": "training",
                    "implementation": implementation,
                    "precision": precision,
                    "glimpses": value,
                }
                row |= {
                    "canvas": 28,
                    "batch": 100,
                    "attention": "none" if case.startswith("generator") else math.nan,
                }
                row |= {
                    "images_per_second": speed(number, value),
                    "peak_mb": math.nan if implementation == "floor" else 10.0 + number,
                }
                rows.append(row)
    return pd.DataFrame(rows)


def test_a_column_for_each_case_and_a_line_for_each_contender():
    figure = figures.growth(some_rows(), "glimpses")
    assert len(figure.axes) == 4
    time, _, memory, _ = figure.axes
    assert [len(axes.lines) for axes in (time, memory)] == [
        5,
        3,
    ]  # a floor has no memory to speak of
    assert list(time.lines[0].get_xdata()) == [2, 4, 8]
    assert list(time.lines[0].get_ydata()) == pytest.approx(
        [20, 40, 80]
    )  # ms for an image, from images a second
    assert (time.get_xscale(), time.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in time.texts] == [
        f"{implementation}, {precision}" for implementation, precision in CONTENDERS
    ]


def test_the_title_tells_what_does_not_vary():
    titles = [
        axes.get_title(loc="left") for axes in figures.growth(some_rows(), "glimpses").axes[:2]
    ]
    assert titles == [
        "classifier, training\n28x28, batches of 100",
        "generator, training\n28x28, batches of 100, no attention",
    ]


def test_names_of_lines_that_end_together_do_not_touch():
    figure = figures.growth(
        some_rows(speed=lambda number, value: (100 + number) / value), "glimpses"
    )
    heights = sorted(text.get_window_extent().y0 for text in figure.axes[0].texts)
    apart = [high - low for low, high in pairwise(heights)]
    assert min(apart) * 72 / figure.dpi > 7


def test_without_memory_there_is_one_row_of_panels(tmp_path):
    figure = figures.growth(some_rows(cases=("generator-10",)).drop(columns="peak_mb"), "glimpses")
    assert len(figure.axes) == 1
    assert all(
        path.stat().st_size > 1000
        for path in figures.save(figure, tmp_path, "growth", ("png", "pdf"))
    )


def test_what_hardly_varies_looks_so():
    low, high = figures.growth(some_rows(), "glimpses").axes[2].get_ylim()
    assert high / low == pytest.approx(8)


def test_nothing_to_plot_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        figures.growth(some_rows().iloc[:0], "glimpses")
