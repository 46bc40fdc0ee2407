"""Table 1 of the paper, test errors in clutter, and one table for each other data set."""

from typing import Any

from drawbench import published
from drawbench.records import Record
from drawbench.tables.rows import Row, by_dataset, rows
from drawbench.tables.table import INTERVAL, Table

PAPER = "cluttered-100x100-8-mnist"
INTERVALS = (
    "Intervals are 95%: of one run over the test images (Wilson), of several seeds the t-interval"
    " over the seeds."
)
COST = (
    "Pixels read and multiply-adds are per image. Minutes are of training, on the machine named in"
    " the cost table."
)
SOURCES = (
    f"Published numbers: {'; '.join(f'{mark}, {text}' for mark, text in published.MARKS.items())}."
)
NOT_MNIST = "The digits are not MNIST: not comparable with numbers published for MNIST."
MORE = "Sources and further columns: {}.csv."
COLUMNS = ("model", "glimpses", "error %", INTERVAL, "seeds")


def tables(records: list[Record]) -> list[Table]:
    """Return Table 1, then one table for each other data set: no two protocols share a column."""
    ours = by_dataset(record for record in records if record.result["task"] == "classify")
    others = [_table(name, runs) for name, runs in ours.items() if name != PAPER]
    return [_table(PAPER, ours.get(PAPER, [])), *others]


def _table(dataset: str, records: list[Record]) -> Table:
    name, title = f"classification_{dataset}", f"Classification of {dataset}"
    if dataset == PAPER:
        name, title = "table1_cluttered", "Table 1: 100x100 cluttered translated MNIST"
    theirs = published.results(dataset)
    digits = [NOT_MNIST] if not_mnist(records) else []
    notes = ["Test error in percent.", INTERVALS, COST, *([SOURCES] if theirs else []), *digits]
    paper_notes = ["Test error in percent.", INTERVALS, *digits, MORE.format(name)]
    return Table(
        name,
        f"{title}, test error",
        " ".join(notes),
        [_published(entry) for entry in theirs] + [_own(row) for row in rows(records)],
        {"minutes": 0},
        paper=COLUMNS,
        paper_note=" ".join(paper_notes),
    )


def not_mnist(records: list[Record]) -> bool:
    """Return whether some runs used digits that could be mistaken for MNIST."""
    return any(record.result["source"] in ("fashion", "kmnist", "digits") for record in records)


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
    seconds = row.timed.mean("train_seconds")
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
