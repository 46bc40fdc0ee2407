"""The figures of a set of finished runs, as one would put them in a paper. Nothing is computed
again, and torch is not needed.

Each compares the rows of one table: the paper's classification task, and static binarised MNIST.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from drawbench import published
from drawbench.errors import one_line
from drawbench.figures import comparisons, curves
from drawbench.records import LARGEST, Record
from drawbench.tables import classification, likelihood, robustness
from drawbench.tables.rows import Row, rows


class Drawn(NamedTuple):
    """A figure with its file name, and what a reader must know of it."""

    name: str
    caption: str
    figure: Figure


def make(records: list[Record], say: Callable[[str], object]) -> list[Drawn]:
    """Every figure that these runs have the numbers or pictures for.

    Args:
        say: is told of pictures that cannot be read.
    """
    classifiers = rows(
        record for record in records if record.result["dataset"] == classification.PAPER
    )
    generators = rows(record for record in records if record.result["dataset"] == likelihood.PAPER)
    return [
        *_errors(classifiers),
        *_training(generators),
        *_steps(generators),
        *_pictures(classifiers, generators, say),
    ]


def _errors(classifiers: list[Row]) -> Iterator[Drawn]:
    """Error against each condition that was measured for a model."""
    for condition, words in robustness.CONDITIONS.items():
        named = {row.legend: robustness.curve(row, condition) for row in classifiers}
        lines = [{**line, "model": name} for name, curve in named.items() for line in curve]
        if not lines:
            continue
        frame = pd.DataFrame(lines).rename(columns={condition: "condition", "error %": "error"})
        trained = set(frame["trained at"])
        at = trained.pop() if len(trained) == 1 else None
        caption = f"Test error against {words}, 100x100 cluttered MNIST; 95 % intervals over the test images or, of several seeds, over them."
        yield Drawn(
            f"error_against_{condition}", caption, curves.error_curve(frame, words, trained_at=at)
        )


def _training(generators: list[Row]) -> Iterator[Drawn]:
    """Bound against step, of the first seed of each model."""
    column = "validation_bound"
    named = {row.legend: row.first.tables.get("metrics.csv", pd.DataFrame()) for row in generators}
    there = {
        name: frame
        for name, frame in named.items()
        if column in frame and frame[column].notna().any()
    }
    if there:
        paper = {
            f"{entry['model']}, the paper, test": float(entry["value"])
            for entry in published.results(likelihood.PAPER)
            if entry["model"].startswith("DRAW") and entry["metric"] == "bound"
        }
        caption = "Validation bound against training updates, static binarised MNIST, one seed of each model; lower is better."
        yield Drawn("bound_against_step", caption, comparisons.bound_curves(there, paper))


def _steps(generators: list[Row]) -> Iterator[Drawn]:
    """KL of the steps, of the first seed of each model."""
    named = {row.legend: row.first.result.get("kl_per_step") for row in generators}
    there = {
        name: kl
        for name, kl in named.items()
        if isinstance(kl, list) and kl and all(map(_is_number, kl))
    }
    if there:
        caption = (
            "KL of each step of the drawing, mean over the test images of static binarised MNIST."
        )
        yield Drawn("kl_per_step", caption, comparisons.kl_lines(there))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= LARGEST


def _pictures(
    classifiers: list[Row], generators: list[Row], say: Callable[[str], object]
) -> Iterator[Drawn]:
    """Sheets that the run of the best model of each kind has in its folder."""
    wanted = [
        (generators, "samples.png", "samples", "Samples, each with the nearest training picture"),
        (
            generators,
            "sample_steps.png",
            "sample_steps",
            "Samples as they are drawn, with the window of each step",
        ),
        (
            generators,
            "reconstructions.png",
            "reconstructions",
            "Test images and their reconstructions",
        ),
        (
            classifiers,
            "glimpses_1.png",
            "glimpse_paths",
            "Where the network looks, what it sees and what it thinks after each glimpse",
        ),
    ]
    for group, file, name, words in wanted:
        having = [
            (record, path)
            for row in group
            for record in row.records
            if (path := record.picture(file))
        ]
        if not having:
            continue
        record, path = min(having, key=lambda pair: pair[0].result["value"])
        try:
            yield Drawn(name, f"{words}: {record.pointer}.", comparisons.sheet(path))
        except Exception as error:  # a broken file makes Pillow raise nearly anything
            say(
                f"Left out: {one_line(str(path))} is not a picture that can be read ({type(error).__name__})."
            )
