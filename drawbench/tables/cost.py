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
    total = _with_start(row.first, by_name)
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
        "precision": row.first.settings.get("precision"),
        **row.about(),
    }


def _with_start(record: Record, by_name: dict[str, Record]) -> float | None:
    """Return seconds of training including the runs it started from; None where one is missing."""
    seconds, visited = record.result.get("train_seconds"), {record.name}
    while seconds is not None and (start := record.settings.get("start")) is not None:
        name = str(start).rstrip("/").rpartition("/")[2]
        if name in visited or name not in by_name:
            return None
        visited.add(name)
        record = by_name[name]
        more = record.result.get("train_seconds")
        seconds = None if more is None else seconds + more
    return seconds
