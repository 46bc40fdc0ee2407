"""Numbers that others have published, as data: ``published.toml``, read and checked."""

import tomllib
from decimal import Decimal
from importlib import resources
from typing import Any

MARKS = {
    "P": "read in the primary paper or its official code",
    "2": "read in a later paper, README or issue thread",
}
METRICS = ("error", "nll", "bound", "iw_bound")


def load() -> dict[str, list[dict[str, Any]]]:
    """The file's ``results`` and ``settings``, each a list of entries in its order; values with the
    digits that were published.

    Raises: ValueError: an entry lacks a field, or has a mark or a metric that there is not: a
        number from memory is not published here.
    """
    found = tomllib.loads(
        (resources.files("drawbench") / "published.toml").read_text(encoding="utf-8"),
        parse_float=Decimal,
    )
    for entry in found["results"]:
        missing = {"protocol", "metric", "model", "value", "mark", "source"} - set(entry)
        if missing or entry["metric"] not in METRICS:
            raise ValueError(
                f"published.toml: {entry} lacks {', '.join(missing) or 'a metric of ' + ', '.join(METRICS)}"
            )
    for entry in found["results"] + found["settings"]:
        if entry.get("mark") not in MARKS:
            raise ValueError(f"published.toml: {entry} must have a mark of {', '.join(MARKS)}")
    return found


def results(protocol: str) -> list[dict[str, Any]]:
    """The results under one protocol, such as ``cluttered-100x100-8-mnist``, in the order of the
    file.
    """
    return [entry for entry in load()["results"] if entry["protocol"] == protocol]


def settings() -> list[dict[str, Any]]:
    """The settings of DRAW, Table 3."""
    return load()["settings"]
