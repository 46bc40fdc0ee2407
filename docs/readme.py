"""Fill the result tables of the README from the results of the runs that they link to.

``python docs/readme.py`` rewrites the numbers; ``--check`` only says whether they are up to date.
A row is filled if its column ``run`` links to run folders; labels, bold type and the choice of
rows are the author's. To add a row, write its label and its links, and run this.
"""

import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drawbench.tables.rows import estimate

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
Results = Sequence[dict[str, Any]]  # of the seeds of a row


def mean(results: Results, field: str) -> float:
    """Return the mean over seeds of a field."""
    return statistics.mean(result[field] for result in results)


def interval(results: Results) -> tuple[float, float]:
    """Return the 95% interval, that of the tables: a result's own, or that of the seeds' mean."""
    found = estimate(list(results))
    return found.low, found.high


def number(value: float) -> str:
    """Return a number with two digits after the point, from 1,000 on with none."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def between(results: Results) -> str:
    """Return the 95% interval as text."""
    return "–".join(number(value) for value in interval(results))


def minutes(results: Results) -> str:
    """Return the mean minutes of training of the seeds that the device of the first one trained,
    marked where that is a GPU.
    """
    device = results[0]["device"]
    same = [result for result in results if result["device"] == device]
    return f"{mean(same, 'train_seconds') / 60:.0f}{'' if device == 'cpu' else ' (GPU)'}"


CELLS: dict[str, Callable[[Results], str]] = {  # by column
    "glimpses": lambda results: f"{results[0]['glimpses']}",
    "steps": lambda results: f"{results[0]['glimpses']}",
    "pixels read": lambda results: f"{mean(results, 'pixels_read'):,.0f}",
    "multiply-adds": lambda results: f"{mean(results, 'multiply_adds') / 1e6:.1f} million",
    "images seen": lambda results: f"{mean(results, 'images_seen') / 1e6:.1f} million",
    "error %": lambda results: number(mean(results, "value")),
    "bound": lambda results: number(mean(results, "value")),
    "95% interval": between,
    "KL": lambda results: number(mean(results, "kl")),
    "importance-weighted": lambda results: (
        number(mean(results, "iw_bound")) if "iw_bound" in results[0] else ""
    ),
    "seeds": lambda results: f"{len({result['seed'] for result in results})}",
    "minutes": minutes,
}


def cells(line: str) -> list[str]:
    """Return the cells of a row of a table in Markdown."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read(folder: str) -> dict[str, Any]:
    """Return the result of a run folder, and the ``device`` that trained it."""
    result, machine = (
        json.loads((ROOT / folder / name).read_text(encoding="utf-8"))
        for name in ("result.json", "environment.json")
    )
    return {**result, "device": machine["device"]}


def filled(head: list[str], line: str) -> str:
    """Return a row with the numbers of its runs; other rows as they are."""
    row = dict(zip(head, cells(line), strict=True))
    folders = re.findall(r"\]\(([^)]+)\)", row["run"])
    if not folders:
        return line
    results = [read(folder) for folder in folders]
    for column, old in row.items():
        if column in CELLS:
            bold = "**" if old.startswith("**") else ""
            row[column] = f"{bold}{CELLS[column](results)}{bold}"
    return "|" + "|".join(f" {cell} " if cell else " " for cell in row.values()) + "|"


def fill(text: str) -> str:
    """Return a page with the numbers of its tables filled in."""
    head: list[str] = []
    lines = []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells(line)
        elif "run" in head and not line.startswith("|---"):
            line = filled(head, line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    before = README.read_text(encoding="utf-8")
    after = fill(before)
    if "--check" in sys.argv and after != before:
        sys.exit("README.md is not up to date; run: make tables")
    if after != before:
        README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
