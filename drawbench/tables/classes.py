"""The error of each class by its name, where the classes are not the ten digits."""

from typing import Any

from drawbench.records import Record
from drawbench.tables.rows import Row, by_dataset, rows
from drawbench.tables.table import Table

DIGITS = [str(digit) for digit in range(10)]
NOTE = "Test error in percent, mean over seeds; images are those of the class in the test part."


def tables(records: list[Record]) -> list[Table]:
    """Return a table for each data set: a row per class, a column per model."""
    named = (record for record in records if record.result.get("classes") not in (None, [], DIGITS))
    return [
        Table(f"classes_{name}", f"Test error of each class of {name}", NOTE, _lines(rows(runs)))
        for name, runs in by_dataset(named).items()
    ]


def _lines(group: list[Row]) -> list[dict[str, Any]]:
    first = group[0].first.result
    lines = []
    for n, name in enumerate(first["classes"]):
        line = {"class": name, "images": sum(first["confusion"][n])}
        for row in group:
            errors = [record.result["per_class_error"][n] for record in row.records]
            known = [error for error in errors if error is not None]
            heading = row.model if row.glimpses is None else f"{row.model}, {row.glimpses} glimpses"
            heading += f" ({row.notes})" if row.notes else ""
            line[heading] = sum(known) / len(known) if known else None
        lines.append(line)
    return lines
