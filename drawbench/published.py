"""Published numbers, each with its source: ``published.toml``."""

import tomllib
from decimal import Decimal
from importlib import resources
from typing import Any

MARKS = {
    "P": "read in the primary paper or its official code",
    "2": "read in the secondary source named",
}


def load() -> dict[str, list[dict[str, Any]]]:
    """Return the ``results`` and ``settings`` of the file; numbers keep the digits published."""
    text = (resources.files("drawbench") / "published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text, parse_float=Decimal)


def results(protocol: str) -> list[dict[str, Any]]:
    """Return the results under a protocol, such as ``cluttered-100x100-8-mnist``."""
    return [entry for entry in load()["results"] if entry["protocol"] == protocol]


def settings() -> list[dict[str, Any]]:
    """Return the settings of DRAW, Table 3."""
    return load()["settings"]
