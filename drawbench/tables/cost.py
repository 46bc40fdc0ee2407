"""What each model costs: parameters, pixels, multiply-adds, speed and minutes of training."""

from typing import Any

from drawbench.records import Record
from drawbench.tables.rows import Row, rows
from drawbench.tables.table import Table

NOTE = (
    "Pixels read and multiply-adds are for one image. Images a second and minutes are those of training as it ran, validations included, "
    "on the machine named, which may have had other work. The minutes with its start add those of the run that it was trained on from."
)


def tables(records: list[Record]) -> list[Table]:
    """Every run, whatever its task."""
    known = {record.name: record for record in records}
    lines = [_line(row, known) for row in rows(records)]
    return [
        Table(
            "cost",
            "Cost of each model",
            NOTE,
            lines,
            {"images/s": 0, "minutes": 1, "minutes with its start": 1},
        )
    ]


def _line(row: Row, known: dict[str, Record]) -> dict[str, Any]:
    seconds, images = row.mean("train_seconds"), row.mean("images_seen")
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
        "minutes with its start": None
        if (total := _with_start(row.first, known)) is None
        else total / 60,
        "threads": machine.get("threads"),
        "machine": machine.get("processor")
        if machine.get("device") == "cpu"
        else machine.get("device"),
        "precision": row.first.settings.get("precision"),
        **row.about(),
    }


def _with_start(record: Record, known: dict[str, Record]) -> float | None:
    """Seconds of training, those of the run that it was trained on from included; None where that
    one is not at hand.
    """
    seconds, seen = record.result.get("train_seconds"), {record.name}
    while (start := record.settings.get("start")) is not None:
        found = known.get(str(start).rstrip("/").rpartition("/")[2])
        if (
            found is None
            or found.name in seen
            or seconds is None
            or "train_seconds" not in found.result
        ):
            return None
        seconds, record = seconds + found.result["train_seconds"], found
        seen.add(found.name)
    return seconds
