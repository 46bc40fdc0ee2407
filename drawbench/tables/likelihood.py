"""Table 2 of the paper, likelihoods of binarised MNIST, and one table for each other data set.

Another rule for the pixels is another data set (``mnist-static``, ``mnist-dynamic``,
``mnist2-fixed``): no two share a table.
"""

from typing import Any

from drawbench import published
from drawbench.records import Record
from drawbench.tables.classification import MORE, NOT_MNIST, SOURCES, not_mnist
from drawbench.tables.rows import Row, by_dataset, rows
from drawbench.tables.table import INTERVAL, Table

PAPER = "mnist-static"
INTERVALS = (
    "Intervals of the bound are 95%: of one run over the test images (normal), of several seeds the"
    " t-interval over the seeds."
)
COLUMNS = ("model", "glimpses", "-log p", "bound", INTERVAL, "importance-weighted", "seeds")
BITS = "bits/dim"  # a column of its own for pixels of 256 levels
METRICS = {"nll": "-log p", "bound": "bound", "iw_bound": "importance-weighted", "bits": BITS}


def tables(records: list[Record]) -> list[Table]:
    """Return Table 2, then one table for each other data set; two digits and captions have files
    of their own.
    """
    ours = by_dataset(
        record
        for record in records
        if record.result["task"] == "generate"
        and not record.result["dataset"].startswith(("mnist2", "captions"))
    )
    title = "Table 2: MNIST, static binarisation (Salakhutdinov & Murray 2008)"
    first = table("table2_binarised_mnist", title, "", ours.pop(PAPER, []), PAPER)
    return [first, *(of_dataset(f"likelihood_{name}", name, ours[name]) for name in ours)]


def of_dataset(name: str, dataset: str, records: list[Record]) -> Table:
    """Return the table of the runs on one data set."""
    rules = sorted({str(record.result.get("pixels", dataset)) for record in records})
    note = f"Pixels: {'; '.join(rules)}."
    if not_mnist(records):
        note += f" {NOT_MNIST}"
    if any("entropy_floor" in record.result for record in records):
        note += (
            " The pixels are not binary: the bound is a cross-entropy above its floor, not a"
            " likelihood."
        )
    return table(name, f"Negative log-likelihood of {dataset}", note, records, dataset)


def table(name: str, title: str, note: str, records: list[Record], protocol: str) -> Table:
    """Return published rows under a protocol and ours.

    Args:
        note: what to say before units, intervals and marks.
    """
    theirs = _published(protocol)
    units = "Nats per test image, lower is better; the bounds are upper bounds on -log p."
    columns: tuple[str, ...] = COLUMNS
    if levels := protocol.endswith("-logistic"):
        columns = (*COLUMNS[:4], BITS, *COLUMNS[4:])
        units += " Bits per dimension: the bound over the number of pixels and channels."
    common = [*([note] if note else []), units, INTERVALS]
    return Table(
        name,
        title,
        " ".join([*common, *([SOURCES] if theirs else [])]),
        [_without_bits(row, levels) for row in theirs + [_own(row) for row in rows(records)]],
        paper=columns,
        paper_note=" ".join([*common, MORE.format(name)]),
    )


def _published(protocol: str) -> list[dict[str, Any]]:
    """Return a row for each model, with all that is published of it."""
    models: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in published.results(protocol):
        empty = {
            "model": entry["model"],
            "whose": "published",
            "glimpses": entry.get("glimpses"),
            **dict.fromkeys(("-log p", "bound", BITS, "low", "high", "importance-weighted")),
            **dict.fromkeys(("samples", "images", "standard error")),
            **dict.fromkeys(("KL", "entropy floor", "interval over", "seeds", "updates", "notes")),
            "runs or source": f"{entry['source']} ({entry['mark']})",
        }
        row = models.setdefault((entry["model"], entry["source"]), empty)
        row[METRICS[entry["metric"]]] = entry["value"]
        row["notes"] = row["notes"] or entry.get("note")
    return list(models.values())


def _without_bits(line: dict[str, Any], levels: bool) -> dict[str, Any]:
    """Leave out the bits where the pixels are not of 256 levels."""
    return line if levels else {name: value for name, value in line.items() if name != BITS}


def _own(row: Row) -> dict[str, Any]:
    value, low, high, basis = row.estimate()
    return {
        "model": f"drawbench {row.model}",
        "whose": "ours",
        "glimpses": row.glimpses,
        "-log p": None,
        "bound": value,
        BITS: row.mean("bits_per_dimension"),
        "low": low,
        "high": high,
        "importance-weighted": row.mean("iw_bound"),
        "samples": row.whole("iw_samples"),
        "images": row.whole("iw_images"),
        "standard error": row.mean("iw_standard_error"),
        "KL": row.mean("kl"),
        "entropy floor": row.mean("entropy_floor"),
        "interval over": basis,
        **row.about(),
    }
