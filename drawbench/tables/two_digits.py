"""Two digits on 60x60 (DRAW, section 4.3): one table for each pixel rule and source of digits."""

from dataclasses import replace

from drawbench import published
from drawbench.records import Record
from drawbench.tables import likelihood
from drawbench.tables.rows import by_dataset
from drawbench.tables.table import Table

NEAREST = "multi-mnist-64x64"


def tables(records: list[Record]) -> list[Table]:
    """Return one table for each two-digit data set."""
    near = published.results(NEAREST)
    values = " to ".join(str(entry["value"]) for entry in near)
    note = (
        f"Nothing is published at 60x60; bounds on other images, of 64x64, go from {values} nats"
        f" ({near[0]['source']}, {near[0]['mark']})."
    )
    two = (record for record in records if record.result["dataset"].startswith("mnist2"))
    result = (
        likelihood.of_dataset(f"two_digits_{name.removeprefix('mnist2-')}", name, runs)
        for name, runs in by_dataset(two).items()
    )
    return [
        replace(table, note=f"{table.note} {note}", paper_note=f"{table.paper_note} {note}")
        for table in result
    ]
