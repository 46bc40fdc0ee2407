"""The figures of a set of finished runs, as one would put them in a paper, drawn from their
records.

Each compares the rows of one table: the paper's classification task, and static binarised MNIST.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from drawbench import published
from drawbench.errors import one_line
from drawbench.figures import comparisons, errors
from drawbench.records import Record
from drawbench.tables import classification, equal_images, likelihood, robustness
from drawbench.tables.rows import Row, rows

# The main panel: DRAW's attention, with an eye and with another glimpse, the same network with its
# choice taken away, and two that see the whole image, one of which chooses where to look closer.
MAIN_MODELS = ("draw", "eye", "affine", "fixed", "random", "stn", "conv6")
FEW_CURVES = 5  # that fit one panel


class NamedFigure(NamedTuple):
    """A figure with its file name and its caption."""

    name: str
    caption: str
    figure: Figure


def make(records: list[Record], say: Callable[[str], object]) -> list[NamedFigure]:
    """Make every figure for which these runs have the numbers or pictures.

    Args:
        say: receives a sentence about each picture that cannot be read.
    """

    def of(dataset: str) -> list[Row]:
        return rows(record for record in records if record.result["dataset"] == dataset)

    classifiers, generators = of(classification.PAPER), of(likelihood.PAPER)
    drawings = [*_errors(classifiers), *_learning(classifiers)]
    drawings += [*_training(generators), *_steps(generators)]
    return [*drawings, *_pictures(classifiers, generators, say)]


def _standing(row: Row) -> tuple[int, float]:
    """Return what sorts the rows with most seeds first, the best of these before the others."""
    return -len(row.records), row.estimate().value


def _label(row: Row, letters: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a short name for a curve; a letter refers to its notes."""
    unit = "glimpses" if row.first.result["task"] == "classify" else "steps"
    count = "" if row.glimpses in (None, 1) else f", {row.glimpses} {unit}"
    letter = f" ({letters[row.notes]})" if row.notes in letters else ""
    return row.model + count + letter


def _letters(group: list[Row]) -> dict[str, str]:
    """Return a letter for each of the rows' notes."""
    notes = sorted({row.notes for row in group if row.notes})
    names = [chr(ord("a") + n % 26) * (1 + n // 26) for n in range(len(notes))]
    return dict(zip(notes, names, strict=True))


def _notes(letters: dict[str, str]) -> list[str]:
    """Return what the letters stand for, a line each."""
    return [f"{letter}: {text}" for text, letter in letters.items()]


def _errors(classifiers: list[Row]) -> Iterator[NamedFigure]:
    """Draw the error against each condition that was measured: of each model that stands in the
    main panel the row with most seeds, since a row of one seed may have had other help.
    """
    for condition, words in robustness.CONDITIONS.items():
        file = f"error_against_{condition}.csv"
        group = [row for row in classifiers if any(file in record.tables for record in row.records)]
        group.sort(key=_standing)
        if not group:
            continue
        letters = _letters(group)
        best = {row.model: row for row in reversed(group)}
        main = [row for model, row in best.items() if model in MAIN_MODELS]
        main = main if len(main) > 2 else list(best.values())
        split = len(group) > FEW_CURVES and 0 < len(main) < len(group)
        parts = []
        for row in sorted(group, key=lambda row: row not in main):
            panel = ("main comparison" if row in main else "all other runs") if split else ""
            for record in row.records:
                if file in record.tables:
                    about = {"name": _label(row, letters), "model": row.first.result["model"]}
                    part = record.tables[file].rename(columns={condition: "condition"})
                    parts.append(part.assign(**about, seed=record.seed, panel=panel))
        trained = {row.first.settings.get(condition) for row in group} - {None}
        frame, at = pd.concat(parts), trained.pop() if len(trained) == 1 else None
        figure = errors.error_curve(frame, words, trained_at=at, notes=_notes(letters))
        caption = (
            f"Test error against {words}, 100x100 cluttered MNIST. Lines are means over seeds, "
            "points the seeds; bars of single runs are 95% intervals over the test images."
        )
        yield NamedFigure(f"error_against_{condition}", caption, figure)


def _learning(classifiers: list[Row]) -> Iterator[NamedFigure]:
    """Draw the validation error against images seen, for one row of each model."""
    best: dict[str, Row] = {}
    for row in sorted(classifiers, key=_standing):
        if equal_images.curve(row.first) is not None and not row.first.settings.get("start"):
            best.setdefault(row.model, row)
    if not best:
        return
    frames = {
        _label(row): [
            each.tables["metrics.csv"]
            for each in row.records
            if equal_images.curve(each) is not None
        ]
        for row in best.values()
    }
    notes = "; ".join(f"{_label(row)}: {row.notes}" for row in best.values() if row.notes)
    caption = (
        "Validation error against training images seen, 100x100 cluttered MNIST, one row of each "
        "model, that with most seeds or else the best. Strong lines are first seeds, faint ones "
        f"the others. The rate falls to zero with the length of each training. {notes}"
    ).strip()
    models = [row.first.result["model"] for row in best.values()]
    figure = comparisons.error_against_images(frames, models)
    yield NamedFigure("error_against_images", caption, figure)


def _training(generators: list[Row]) -> Iterator[NamedFigure]:
    """Draw the bound against the update, for the first seed of each model."""
    column, letters = "validation_bound", _letters(generators)
    frames, models = {}, []
    for row in generators:
        frame = row.first.tables.get("metrics.csv", pd.DataFrame())
        if column in frame and frame[column].notna().any():
            frames[_label(row, letters)] = frame
            models.append(row.model)
    if not frames:
        return
    paper = {
        entry["model"].replace("DRAW", "the paper", 1): float(entry["value"])
        for entry in published.results(likelihood.PAPER)
        if entry["model"].startswith("DRAW") and entry["metric"] == "bound"
    }
    caption = (
        "Validation bound against training updates, static binarised MNIST, one seed per model; "
        "lower is better. The paper's are on the test images."
    )
    figure = comparisons.bound_curves(frames, paper, models, _notes(letters))
    yield NamedFigure("bound_against_step", caption, figure)


def _steps(generators: list[Row]) -> Iterator[NamedFigure]:
    """Draw the KL of the steps, for the first seed of each model with more than one."""
    letters, lines, models = _letters(generators), {}, []
    for row in generators:
        kl = row.first.result.get("kl_per_step")
        if isinstance(kl, list) and len(kl) > 1 and all(map(_is_number, kl)):
            lines[_label(row, letters)] = kl
            models.append(row.model)
    if lines:
        caption = (
            "KL of each step of the drawing, mean over the test images, static binarised MNIST."
        )
        figure = comparisons.kl_lines(lines, models, _notes(letters))
        yield NamedFigure("kl_per_step", caption, figure)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value)) and abs(value) < 1e100


def _pictures(
    classifiers: list[Row], generators: list[Row], say: Callable[[str], object]
) -> Iterator[NamedFigure]:
    """Copy sheets from the folder of the best run of each kind."""
    sheets = (
        (generators, "samples", "samples", "Samples, each beside the nearest training image"),
        (generators, "sample_steps", "sample_steps", "Samples step by step, and where each writes"),
        (generators, "reconstructions", "reconstructions", "Test images and reconstructions"),
        (
            classifiers,
            "glimpses_1",
            "glimpse_paths",
            "Where the network looks, what it sees, and what it answers after each glimpse",
        ),
    )
    for group, file, name, words in sheets:
        available = [
            (record, path)
            for row in group
            for record in row.records
            if (path := record.picture(f"{file}.png"))
        ]
        if not available:
            continue
        record, path = min(available, key=lambda pair: pair[0].result["value"])
        try:
            figure = comparisons.sheet(path)
        except Exception as error:  # a broken file makes Pillow raise nearly anything
            kind = type(error).__name__
            say(f"Skipped {one_line(str(path))}: this picture cannot be read ({kind}).")
            continue
        yield NamedFigure(name, f"{words}: {record.pointer}.", figure)
