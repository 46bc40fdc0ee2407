"""Published numbers, each with its source: ``published.toml``."""

import tomllib
from decimal import Decimal
from importlib import resources
from typing import Any

MARKS = {
    "P": "read in the primary paper or its official code",
    "2": "read in the secondary source named",
}
METRICS = ("error", "nll", "bound", "iw_bound")


def load() -> dict[str, list[dict[str, Any]]]:
    """Return the ``results`` and ``settings`` of the file; numbers keep the digits published.

    Raises:
        ValueError: an entry lacks a field, or has an unknown mark or metric.
    """
    text = (resources.files("drawbench") / "published.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text, parse_float=Decimal)
    for entry in content["results"]:
        missing = {"protocol", "metric", "model", "value", "mark", "source"} - set(entry)
        if missing:
            raise ValueError(f"published.toml: {entry} lacks {', '.join(sorted(missing))}")
        if entry["metric"] not in METRICS:
            raise ValueError(f"published.toml: {entry} must have one of the metrics {METRICS}")
    for entry in content["results"] + content["settings"]:
        if entry.get("mark") not in MARKS:
            raise ValueError(f"published.toml: {entry} must have one of the marks {list(MARKS)}")
    return content


def results(protocol: str) -> list[dict[str, Any]]:
    """Return the results under a protocol, such as ``cluttered-100x100-8-mnist``."""
    return [entry for entry in load()["results"] if entry["protocol"] == protocol]


def settings() -> list[dict[str, Any]]:
    """Return the settings of DRAW, Table 3."""
    return load()["settings"]
