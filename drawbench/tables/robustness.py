"""Errors outside the training conditions: more clutter, other canvases, more or fewer glimpses than
in training.
"""

from typing import Any

import pandas as pd

from drawbench.records import Record
from drawbench.tables.classification import INTERVAL, PAPER
from drawbench.tables.rows import Row, estimate, rows
from drawbench.tables.table import Table

ABOUT = ("seeds", "notes", "runs or source")
CONDITIONS = {
    "clutter": "pieces of clutter",
    "canvas": "side of the canvas, pixels",
    "glimpses": "glimpses at test time",
}


def tables(records: list[Record]) -> list[Table]:
    """For each data set and condition that was measured with ``drawbench evaluate`` a table, a
    column for each value.
    """
    made = []
    for dataset in sorted(
        {record.result["dataset"] for record in records}, key=lambda name: (name != PAPER, name)
    ):
        gathered = rows(record for record in records if record.result["dataset"] == dataset)
        for condition, words in CONDITIONS.items():
            curves = [lines for row in gathered if (lines := curve(row, condition))]
            name = f"robustness_{condition}" + ("" if dataset == PAPER else f"_{dataset}")
            title = f"Test error in percent against {words}, trained on {dataset}"
            note = f"{INTERVAL} The intervals are in the CSV file. A dash: not measured."
            made.append(
                Table(
                    name,
                    title,
                    note,
                    [line for lines in curves for line in lines],
                    wide=_wide(curves, condition),
                )
            )
    return made


def _wide(curves: list[list[dict[str, Any]]], condition: str) -> list[dict[str, Any]]:
    """A row for each curve and a column for each value of the condition."""
    values = sorted({line[condition] for lines in curves for line in lines})
    wide = []
    for lines in curves:
        first, errors = lines[0], {line[condition]: line["error %"] for line in lines}
        about = {name: first[name] for name in ("model", "trained with glimpses", "trained at")}
        wide.append(
            {
                **about,
                **{str(value): errors.get(value) for value in values},
                **{name: first[name] for name in ABOUT},
            }
        )
    return wide


def curve(row: Row, condition: str) -> list[dict[str, Any]]:
    """A line for each value of a condition: the mean error over the seeds that have it measured."""
    file = f"error_against_{condition}.csv"
    seeds = [record for record in row.records if file in record.tables]
    if not seeds:
        return []
    lines = []
    for value, group in pd.concat([record.tables[file] for record in seeds]).groupby(condition):
        measured: list[dict[str, Any]] = [
            {str(name): cell for name, cell in line.items()} for line in group.to_dict("records")
        ]
        error, low, high, basis = estimate(measured, "error")
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
