"""Table 3 of the paper: the settings of its networks, and ours."""

from typing import Any

from drawbench import published
from drawbench.records import Record
from drawbench.tables.rows import Row, rows
from drawbench.tables.table import Table

NOTE = (
    "The paper trains with Adam and states nothing else about optimisation. P:"
    f" {published.MARKS['P']}."
)


def tables(records: list[Record]) -> list[Table]:
    """Return the paper's settings, then those of our DRAW networks."""
    theirs = [_published(entry) for entry in published.settings()]
    draw = [record for record in records if record.result["model"] == "draw"]
    return [
        Table(
            "table3_settings",
            "Table 3: settings, the paper's and ours",
            NOTE,
            theirs + [_own(row) for row in rows(draw)],
            {"rate": 4, "weight decay": 3},
        )
    ]


def _published(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": entry["data"],
        "whose": "published",
        "glimpses": entry.get("glimpses"),
        "LSTM": entry.get("hidden"),
        "z": entry.get("latent"),
        "read": entry.get("read"),
        "write": entry.get("write"),
        **dict.fromkeys(
            ("window map", "batch", "rate", "weight decay", "updates", "seeds", "notes")
        ),
        "runs or source": f"{entry['source']} ({entry['mark']})",
    }


def _own(row: Row) -> dict[str, Any]:
    settings = row.first.settings
    attention = settings.get("attention", "read")
    read = settings.get("patch")
    if attention in ("both", "read"):
        read = read or settings.get("read_patch")
    write = settings.get("write_patch") if attention in ("both", "write") else None
    return {
        "data": row.first.result["dataset"],
        "whose": "ours",
        "glimpses": row.glimpses,
        "LSTM": settings.get("hidden"),
        "z": settings.get("latent"),
        "read": f"{read}x{read}" if read else None,
        "write": f"{write}x{write}" if write else None,
        "window map": settings.get("window_map"),
        "batch": settings.get("batch"),
        "rate": settings.get("learning_rate"),
        "weight decay": settings.get("weight_decay"),
        **row.about(),
    }
