"""What each model costs: parameters, pixels, multiply-adds, speed and minutes of training."""

from typing import Any

from drawbench.records import Record
from drawbench.tables.rows import Row, rows
from drawbench.tables.table import Table

NOTE = (
    "Pixels read and multiply-adds are per image. Images/s and minutes are of training, including"
    " validation, on the machine named, which may have been busy; seeds that another kind of device"
    " trained do not count. Minutes with start include the"
    " run that the initial weights came from."
)


def tables(records: list[Record]) -> list[Table]:
    """Return one table of all runs."""
    by_name = {record.name: record for record in records}
    return [
        Table(
            "cost",
            "Cost of each model",
            NOTE,
            [_line(row, by_name) for row in rows(records)],
            {"images/s": 0, "minutes": 1, "minutes with start": 1},
        )
    ]


def _line(row: Row, by_name: dict[str, Record]) -> dict[str, Any]:
    seconds, images = row.timed.mean("train_seconds"), row.timed.mean("images_seen")
    before = _before(row.first, by_name)
    total = None if seconds is None or before is None else seconds + before
    machine = row.first.environment
    return {
        "task": row.first.result["task"],
        "model": f"drawbench {row.model}",
        "glimpses": row.glimpses,
        "data": row.first.result["dataset"],
        "parameters": row.whole("parameters"),
        "pixels read": row.whole("pixels_read"),
        "multiply-adds": row.whole("multiply_adds"),
        "images/s": images / seconds if images and seconds else None,
        "minutes": None if seconds is None else seconds / 60,
        "minutes with start": None if total is None else total / 60,
        "threads": machine.get("threads"),
        "machine": machine.get("processor") if row.device == "cpu" else row.device,
        "precision": ", ".join(dict.fromkeys(map(_precision, row.records))),
        **row.about(),
    }


def _precision(record: Record) -> str:
    """Return the type of matrix products: float32 on a CPU that does not multiply bfloat16."""
    asked, machine = str(record.settings.get("precision")), record.environment
    rounds = machine.get("device") != "cpu" or machine.get("bfloat16", True)
    return asked if asked != "bfloat16" or rounds else "float32"


def _before(record: Record, by_name: dict[str, Record]) -> float | None:
    """Return seconds of training of the runs it started from; None where one is missing."""
    seconds, visited = 0.0, {record.name}
    while (start := record.settings.get("start")) is not None:
        name = str(start).rstrip("/").rpartition("/")[2]
        if name in visited or name not in by_name:
            return None
        visited.add(name)
        record = by_name[name]
        if (more := record.result.get("train_seconds")) is None:
            return None
        seconds += more
    return seconds
