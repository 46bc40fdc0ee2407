"""Two digits on 60x60 (DRAW, section 4.3): one table for each rule of the pixels and source of the
digits.
"""

from drawbench import published
from drawbench.records import Record
from drawbench.tables import likelihood
from drawbench.tables.table import Table

NEAREST = "multi-mnist-64x64"


def tables(records: list[Record]) -> list[Table]:
    """One for each two-digit data set that was run."""
    names = sorted(
        {
            record.result["dataset"]
            for record in records
            if record.result["dataset"].startswith("mnist2")
        }
    )
    near = published.results(NEAREST)
    values = " to ".join(str(entry["value"]) for entry in near)
    seen = f"{near[0]['source']}, {near[0]['mark']}"
    said = f"Nothing is published at 60x60; on 64x64 images of another make bounds go from {values} nats ({seen})."
    made = [
        likelihood.of_dataset(f"two_digits_{name.removeprefix('mnist2-')}", records, name)
        for name in names
    ]
    return [Table(table.name, table.title, f"{table.note} {said}", table.rows) for table in made]
