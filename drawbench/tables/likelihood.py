"""Table 2 of the paper, likelihoods of binarised MNIST, and its like for every other data set that
a generator was run on.

Another rule for the pixels is another data set (``mnist-static``, ``mnist-dynamic``,
    ``mnist2-fixed``): no two share a table.
"""

from typing import Any

from drawbench import published
from drawbench.records import Record
from drawbench.tables.classification import NOT_MNIST, SOURCES
from drawbench.tables.rows import Row, rows
from drawbench.tables.table import Table

PAPER = "mnist-static"
DIGITS = (
    "mnist",
    "fashion",
    "kmnist",
    "digits",
)  # sources; others are photographs, under their own name
INTERVAL = "Interval: 95 %, of the bound; of one run over the test images (normal), of several seeds the t-interval over them."


def tables(records: list[Record]) -> list[Table]:
    """Table 2 first, then one for each other data set; two digits have a file of their own."""
    ours = [
        record
        for record in records
        if record.result["task"] == "generate" and not record.result["dataset"].startswith("mnist2")
    ]
    others = sorted({record.result["dataset"] for record in ours} - {PAPER})
    title = "Table 2: MNIST, static binarisation (Salakhutdinov & Murray 2008)"
    first = table(
        "table2_binarised_mnist",
        title,
        "",
        [record for record in ours if record.result["dataset"] == PAPER],
        PAPER,
    )
    return [first, *(of_dataset(f"likelihood_{name}", ours, name) for name in others)]


def of_dataset(name: str, records: list[Record], dataset: str) -> Table:
    """The table of the runs on one data set."""
    chosen = [record for record in records if record.result["dataset"] == dataset]
    rule = sorted({str(record.result.get("pixels", dataset)) for record in chosen})
    note = f"Pixels: {'; '.join(rule)}."
    if any(
        record.result["source"] in DIGITS and record.result["source"] != "mnist"
        for record in chosen
    ):
        note += f" {NOT_MNIST}"
    if any("entropy_floor" in record.result for record in chosen):
        note += " The pixels are not binary: the bound is a cross-entropy above its floor, not a likelihood."
    return table(name, f"Negative log-likelihood of {dataset}", note, chosen, dataset)


def table(name: str, title: str, note: str, records: list[Record], protocol: str) -> Table:
    """Published rows under a protocol and our own.

    Args:
        note: what to say beyond units, intervals and marks.
    """
    theirs = _published(protocol)
    notes = [
        note,
        f"Nats per test image, lower is better; the bounds are upper bounds on -log p. {INTERVAL}",
        SOURCES if theirs else "",
    ]
    return Table(
        name,
        title,
        " ".join(note for note in notes if note),
        theirs + [_own(row) for row in rows(records)],
    )


def _published(protocol: str) -> list[dict[str, Any]]:
    """A row for each model, whatever of -log p, bound and importance-weighted bound is published of
    it.
    """
    columns = {"nll": "-log p", "bound": "bound", "iw_bound": "importance-weighted"}
    models: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in published.results(protocol):
        empty = {
            "model": entry["model"],
            "whose": "published",
            "steps": entry.get("glimpses"),
            **dict.fromkeys(
                (
                    "-log p",
                    "bound",
                    "low",
                    "high",
                    "importance-weighted",
                    "samples",
                    "KL",
                    "entropy floor",
                )
            ),
            **dict.fromkeys(("interval over", "seeds", "updates")),
            "notes": None,
            "runs or source": f"{entry['source']} ({entry['mark']})",
        }
        row = models.setdefault((entry["model"], entry["source"]), empty)
        row[columns[entry["metric"]]] = entry["value"]
        row["notes"] = row["notes"] or entry.get("note")
    return list(models.values())


def _own(row: Row) -> dict[str, Any]:
    value, low, high, basis = row.estimate()
    return {
        "model": f"drawbench {row.model}",
        "whose": "ours",
        "steps": row.glimpses,
        "-log p": None,
        "bound": value,
        "low": low,
        "high": high,
        "importance-weighted": row.mean("iw_bound"),
        "samples": row.whole("iw_samples"),
        "KL": row.mean("kl"),
        "entropy floor": row.mean("entropy_floor"),
        "interval over": basis,
        **row.about(),
    }
