"""``drawbench runs``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options
from drawbench.errors import Problem

UNITS = {"test_error_percent": "{:.2f}%", "nll_bound_nats": "{:.2f} nats"}
UNITS |= {
    "validation_error": "{:.2f}% (validation)",
    "validation_bound": "{:.2f} nats (validation)",
}
AGES = ((86_400, "d"), (3_600, "h"), (60, "min"))  # seconds


@click.group(
    cls=options.DefaultGroup,
    default="list",
    alone=True,
    epilog="""\b
Examples:
  drawbench runs                                   all in results/published and results/runs
  drawbench runs --where state=half-done           what to resume; also running, damaged
  drawbench runs --where model=draw --where glimpses=8 --sort value
  drawbench runs --where 'data=cluttered*' --where 'value<4' --json
  drawbench runs results/runs --sort age           the latest first
  drawbench runs diff draw-8 draw-8-decay          settings and results that differ
""",
)
def command() -> None:
    """List runs (runs [list]), or compare the settings of two (runs diff A B).

    Which runs, and in which order: runs list --help.
    """


@command.command("list")
@options.PLACES
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Only runs with FIELD=PATTERN, FIELD<NUMBER or FIELD>NUMBER: state, task, model, data, "
    "value, age (seconds), or any setting. All that are given must hold.",
)
@click.option("--sort", metavar="FIELD", default="run", help="Field or setting to sort by.")
@click.option("--reverse", is_flag=True, help="Largest first.")
@options.common
def list_runs(
    places: tuple[Path, ...], conditions: tuple[str, ...], sort: str, reverse: bool, as_json: bool
) -> None:
    """List run folders: state, model, data, result, seed and age. Damaged ones say why."""
    from drawbench import listing
    from drawbench.cli import console

    searched = places or [place for place in options.USUAL_PLACES if place.is_dir()]
    found = listing.rows(searched, console.say)
    found = listing.ordered(listing.chosen(found, conditions), sort, reverse)
    for row in found:
        if row["problem"]:
            console.say(f"{row['run']}: {row['problem']}.")
    where = ", ".join(str(place) for place in searched or options.USUAL_PLACES)
    none = f"There is no {'such ' if conditions else ''}run in {where}."
    text = console.columns([_words(row) for row in found]) if found else none
    console.emit({"runs": found}, text, as_json)


def _words(row: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a run."""
    state, looks, unit = row["state"], row["glimpses"], UNITS.get(str(row["metric"]))
    if state in ("running", "half-done") and row["progress"] is not None:
        state += f" {100 * row['progress']:.0f}%"
    return {
        "run": row["run"],
        "state": state,
        "model": _word(row["model"]) + (f", {looks}" if looks else ""),
        "data": _word(row["data"]),
        "seed": _word(row["seed"]),
        "result": "" if unit is None or row["value"] is None else unit.format(row["value"]),
        "age": _age(row["age"]),
    }


def _word(value: Any) -> str:
    from drawbench.errors import one_line

    text = "" if value is None else one_line(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    length, unit = next(((n, unit) for n, unit in AGES if seconds >= 2 * n), (1, "s"))
    return f"{seconds / length:.0f} {unit}"


@command.command("diff")
@click.argument("first", type=options.run)
@click.argument("second", type=options.run)
@options.common
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Show the settings, the results and the versions in which two runs differ."""
    from drawbench import listing, pretrained
    from drawbench.cli import console

    first, second = pretrained.find(first), pretrained.find(second)
    for folder in (first, second):
        if not folder.is_dir():
            raise Problem(f"there is no run folder {folder}; list them with: drawbench runs")
    tables = listing.differences(first, second)
    names = [str(first), str(second)]
    parts = []
    for title, fields in tables.items():
        rows = [
            {title: name, names[0]: _number(one), f"{names[1]} ": _number(two)}
            for name, (one, two) in fields.items()
            if title == "settings" or not isinstance(one or two, list | dict)
        ]
        if rows or not fields:
            parts.append(console.columns(rows) if rows else f"{title}\n  no difference")
    console.emit({"runs": names, **tables}, "\n\n".join(parts), as_json)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else _word(value)
