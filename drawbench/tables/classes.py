"""The error of each class by its name, where the classes are not the ten digits."""

from typing import Any

from drawbench.records import Record, is_number
from drawbench.tables.rows import Row, by_dataset, rows
from drawbench.tables.table import Table

DIGITS = [str(digit) for digit in range(10)]
NOTE = "Test error in percent, mean over seeds; images are those of the class in the test part."


def tables(records: list[Record]) -> list[Table]:
    """Return a table for each data set: a row per class, a column per model.

    Data sets of one name can have different classes: each list of classes has a table of its own.
    """
    result = []
    for name, runs in by_dataset(filter(_is_named, records)).items():
        alike: dict[tuple[str, ...], list[Record]] = {}
        for record in runs:
            alike.setdefault(tuple(record.result["classes"]), []).append(record)
        for number, group in enumerate(alike.values(), start=1):
            own = name if number == 1 else f"{name}-{number}"
            title = f"Test error of each class of {own}"
            result.append(Table(f"classes_{own}", title, NOTE, _lines(rows(group))))
    return result


def _is_named(record: Record) -> bool:
    """Return whether a run has an error for each of its classes, which are not the digits."""
    facts = ("classes", "per_class_error", "confusion")
    classes, errors, confusion = (record.result.get(name) or [] for name in facts)
    if not classes or classes == DIGITS or not all(isinstance(name, str) for name in classes):
        return False
    if not all(isinstance(one, list) and len(one) == len(classes) for one in (errors, confusion)):
        return False
    counts = [count for row in confusion for count in (row if isinstance(row, list) else [None])]
    return all(map(is_number, [*counts, *(error for error in errors if error is not None)]))


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
