"""Errors outside the training conditions: other clutter, canvases or numbers of glimpses."""

from typing import Any

import pandas as pd

from drawbench.records import Record
from drawbench.tables.classification import INTERVALS, PAPER
from drawbench.tables.rows import Row, by_dataset, estimate, rows
from drawbench.tables.table import Table

CONDITIONS = {
    "clutter": "pieces of clutter",
    "canvas": "side of the canvas, pixels",
    "glimpses": "glimpses at test time",
}
NOTE = f"{INTERVALS} The intervals are in the CSV file. A dash: not measured."


def tables(records: list[Record]) -> list[Table]:
    """Return a table for each data set and condition measured with ``drawbench evaluate``."""
    result = []
    for dataset, runs in by_dataset(records, first=PAPER).items():
        for condition, words in CONDITIONS.items():
            curves = [lines for row in rows(runs) if (lines := curve(row, condition))]
            name = f"robustness_{condition}" + ("" if dataset == PAPER else f"_{dataset}")
            title = f"Test error in percent against {words}, trained on {dataset}"
            lines = [line for lines in curves for line in lines]
            result.append(Table(name, title, NOTE, lines, wide=_wide(curves, condition)))
    return result


def _wide(curves: list[list[dict[str, Any]]], condition: str) -> list[dict[str, Any]]:
    """Return a row for each curve, with a column for each value of the condition."""
    values = sorted({line[condition] for lines in curves for line in lines})
    wide = []
    for lines in curves:
        first, errors = lines[0], {line[condition]: line["error %"] for line in lines}
        wide.append(
            {name: first[name] for name in ("model", "trained with glimpses", "trained at")}
            | {str(value): errors.get(value) for value in values}
            | {name: first[name] for name in ("seeds", "notes", "runs or source")}
        )
    return wide


def curve(row: Row, condition: str) -> list[dict[str, Any]]:
    """Return a line for each value of a condition: the mean error over the seeds measured."""
    file = f"error_against_{condition}.csv"
    seeds = [record for record in row.records if file in record.tables]
    if not seeds:
        return []
    lines = []
    for value, group in pd.concat([record.tables[file] for record in seeds]).groupby(condition):
        error, low, high, basis = estimate(group.to_dict("records"), "error")
        lines.append(
            {
                "model": f"drawbench {row.model}",
                "trained with glimpses": row.glimpses,
                condition: int(value),
                "trained at": row.first.settings.get(condition),
                "error %": error,
                "low": low,
                "high": high,
                "interval over": basis,
                "seeds": len(seeds),
                "notes": row.notes or None,
                "runs or source": ", ".join(record.pointer for record in seeds),
            }
        )
    return lines
