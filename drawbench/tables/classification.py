"""Table 1 of the paper, test errors in clutter, and its like for every other data set that a
classifier was run on.
"""

from typing import Any

from drawbench import published
from drawbench.records import Record
from drawbench.tables.rows import Row, rows
from drawbench.tables.table import Table

PAPER = "cluttered-100x100-8-mnist"
INTERVAL = "Interval: 95 %; of one run over the test images (Wilson), of several seeds the t-interval over them."
COST = "Pixels read and multiply-adds: for one image. Minutes: of training, on the machine that the cost table names."
SOURCES = "Published: P, read in the primary paper or its official code; 2, read in a later source."
NOT_MNIST = "Made from other digits than MNIST: not comparable with any number published for MNIST."


def tables(records: list[Record]) -> list[Table]:
    """Table 1 first, then one for each other data set, so that no two protocols share a column."""
    ours = [record for record in records if record.result["task"] == "classify"]
    others = sorted({record.result["dataset"] for record in ours} - {PAPER})
    return [
        _table(name, [record for record in ours if record.result["dataset"] == name])
        for name in [PAPER, *others]
    ]


def _table(dataset: str, records: list[Record]) -> Table:
    name = "table1_cluttered" if dataset == PAPER else f"classification_{dataset}"
    title = (
        "Table 1: 100x100 cluttered translated MNIST"
        if dataset == PAPER
        else f"Classification of {dataset}"
    )
    note = f"Test error in percent. {INTERVAL} {COST} {SOURCES if published.results(dataset) else ''}".strip()
    if any(record.result["source"] != "mnist" for record in records):
        note += f" {NOT_MNIST}"
    return Table(
        name,
        f"{title}, test error",
        note,
        [_published(entry) for entry in published.results(dataset)]
        + [_own(row) for row in rows(records)],
        {"minutes": 0},
    )


def _published(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": entry["model"],
        "whose": "published",
        "glimpses": entry.get("glimpses"),
        "error %": entry["value"],
        **dict.fromkeys(("low", "high", "interval over", "seeds")),
        "pixels read": entry.get("pixels"),
        **dict.fromkeys(("multiply-adds", "parameters", "minutes")),
        "training clutter": entry.get("clutter"),
        "updates": None,
        "notes": entry.get("note"),
        "runs or source": f"{entry['source']} ({entry['mark']})",
    }


def _own(row: Row) -> dict[str, Any]:
    value, low, high, basis = row.estimate()
    seconds = row.mean("train_seconds")
    return {
        "model": f"drawbench {row.model}",
        "whose": "ours",
        "glimpses": row.glimpses,
        "error %": value,
        "low": low,
        "high": high,
        "interval over": basis,
        "pixels read": row.whole("pixels_read"),
        "multiply-adds": row.whole("multiply_adds"),
        "parameters": row.whole("parameters"),
        "minutes": None if seconds is None else seconds / 60,
        "training clutter": row.first.result.get("clutter"),
        **row.about(),
    }
