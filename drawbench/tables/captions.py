"""Captioned digits: whether a drawing is what the sentence says; a table for each data set."""

from collections.abc import Iterator
from typing import Any

from drawbench.records import Record
from drawbench.tables.classification import NOT_MNIST, not_mnist
from drawbench.tables.likelihood import INTERVALS
from drawbench.tables.rows import Estimate, Row, by_dataset, estimate, rows
from drawbench.tables.table import INTERVAL, Table

BOUND, DRAWN, REAL = "bound (nats)", "drawings read right (%)", "images read right (%)"
MEASURES = (  # what is measured, with which captions, its field of the result
    (BOUND, "seen", ""),
    (BOUND, "held out", "held_out"),
    (BOUND, "wrong", "wrong_condition"),
    (DRAWN, "seen", "read"),
    (DRAWN, "held out", "held_out_read"),
    (REAL, "seen", "real_read"),
    (REAL, "held out", "held_out_real_read"),
)
NOTE = (
    "Nothing is published for this protocol. Seen: captions as in training, with test digits. Held"
    " out: the twelve combinations of layout and digits that training never shows, under either"
    " phrasing. Wrong: each test image under the caption of another that says something else. Read"
    " right: a convolutional network, trained on MNIST and on no drawing, finds the right digits"
    " in the right places and at most 5% of the ink elsewhere; on test images it is the ceiling."
    " Nats per image, lower is better; intervals of shares are Wilson's."
)


def tables(records: list[Record]) -> list[Table]:
    """Return one table for each captioned data set."""
    ours = (record for record in records if record.result["dataset"].startswith("captions"))
    return [_table(name, runs) for name, runs in by_dataset(ours).items()]


def _table(name: str, records: list[Record]) -> Table:
    rules = sorted({str(record.result.get("pixels", name)) for record in records})
    note = [f"Pixels: {'; '.join(rules)}.", NOTE, INTERVALS]
    return Table(
        name.replace("-", "_"),
        f"From a caption to a drawing: {name}",
        " ".join([*note, *([NOT_MNIST] if not_mnist(records) else [])]),
        [line for row in rows(records) for line in _lines(row)],
        paper=("model", "glimpses", "measure", "captions", "value", INTERVAL, "seeds"),
    )


def _lines(row: Row) -> Iterator[dict[str, Any]]:
    """Return a line for each measure that all runs of a row have."""
    for measure, captions, field in MEASURES:
        if (measured := _estimate(row, field)) is None:
            continue
        value, low, high, basis = measured
        yield {
            "model": f"drawbench {row.model}",
            "glimpses": row.glimpses,
            "measure": measure,
            "captions": captions,
            "value": value,
            "low": low,
            "high": high,
            "interval over": basis,
            **row.about(),
        }


def _estimate(row: Row, field: str) -> Estimate | None:
    if not field:
        return row.estimate()
    results: list[Any] = [record.result.get(field) for record in row.records]
    return None if None in results else estimate(results)
