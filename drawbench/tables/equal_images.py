"""Validation error after equally many images, and whether training had stopped helping."""

from typing import Any

import pandas as pd

from drawbench.records import Record
from drawbench.tables.classification import PAPER
from drawbench.tables.rows import Row, by_dataset, rows
from drawbench.tables.table import Table

IMAGES = (500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)
TOLERANCE = 0.1  # a validation counts for a number of images if it came at most so much earlier
NOTE = (
    "Validation error in percent, mean over seeds, of the averaged weights at the last validation"
    " before so many training images; a dash: trained for less, not validated near it, or started"
    " from another run. Where the learning rate falls over the whole training, a shorter one is"
    " ahead at equal images; until a plateau it stays at its peak for the first 80%. The last"
    " quarter shows what more training still brought, in points."
    " Core-minutes are of training, on the machine named in the cost table, unless that is a GPU."
)


def tables(records: list[Record]) -> list[Table]:
    """Return a table for each data set that classifiers were trained on."""
    classifiers = [record for record in records if record.result["task"] == "classify"]
    result = []
    for dataset, runs in by_dataset(classifiers, first=PAPER).items():
        name = "equal_images" + ("" if dataset == PAPER else f"_{dataset}")
        title = f"Validation error at equal images seen, {dataset}"
        lines = [line for row in rows(runs) if (line := _line(row))]
        lines.sort(key=lambda line: line["at the end"])
        decimals = {"million images": 1, "core-minutes": 0}
        result.append(Table(name, title, NOTE, lines, decimals))
    return result


def _line(row: Row) -> dict[str, Any] | None:
    """Return the line of a row; None where no run has its validations."""
    curves = [each for record in row.records if (each := curve(record)) is not None]
    if not curves:
        return None
    threads = row.first.environment.get("threads") or 1
    seconds = row.timed.mean("train_seconds") if row.device == "cpu" else None
    scratch = row.first.settings.get("start") is None
    at = {n: _mean([_at(c, n) for c in curves]) if scratch else None for n in IMAGES}
    end, before = _mean([_at(c) for c in curves]), _mean([_before(c) for c in curves])
    return {
        "model": f"drawbench {row.model}",
        "glimpses": row.glimpses,
        **{f"{images / 1e6:g} M": error for images, error in at.items()},
        "at the end": end,
        "last quarter": None if before is None or end is None else before - end,
        "million images": sum(c.index[-1] for c in curves) / len(curves) / 1e6,
        "core-minutes": None if seconds is None else seconds / 60 * threads,
        **row.about(),
    }


def curve(record: Record) -> pd.Series | None:
    """Return the validation error by images seen; None without validations."""
    frame = record.tables.get("metrics.csv", pd.DataFrame())
    if not {"images_seen", "validation_error"} <= set(frame.columns):
        return None
    frame = frame.dropna(subset=["images_seen", "validation_error"]).sort_values("images_seen")
    return frame.set_index("images_seen")["validation_error"] if len(frame) else None


def _at(curve: pd.Series, images: float | None = None) -> float | None:
    """Return the error at the last validation up to a number of images, or at the end."""
    if images is None:
        return float(curve.iloc[-1])
    part = curve.loc[(1 - TOLERANCE) * images : images]
    return float(part.iloc[-1]) if len(part) else None


def _before(curve: pd.Series) -> float | None:
    """Return the error after three quarters of the training."""
    return _at(curve, 0.75 * curve.index[-1])


def _mean(errors: list[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if len(known) == len(errors) else None
