"""``drawbench tables``."""

from dataclasses import replace
from pathlib import Path

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench tables                                  all finished runs; yours go to results/own
  drawbench tables results/published --out paper    into paper/tables and paper/figures
  drawbench tables RUN RUN                          from single runs
"""
)
@options.PLACES
@click.option(
    "--out",
    type=options.folder,
    help="Folder for tables and figures.  [default: results; results/own with runs of your own]",
)
@options.common
def command(places: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Make the tables and figures of finished runs again, from their folders alone.

    The paper's tables with ours beside them, settings, robustness and cost, each as CSV, Markdown
    and LaTeX; figures as PDF and PNG. Runs that differ in their seed alone are one row. Nothing is
    trained or measured, and the same runs give the same bytes.
    """
    from drawbench.cli import console

    runs = options.records_in(places)
    if out is None:  # the committed tables are made from the committed runs alone
        ours = all(run.folder.absolute().parent.name == "published" for run in runs)
        out = Path("results") if ours else Path("results/own")
    files = write(runs, out)
    for old in sorted(set((out / "tables").glob("*.*")) - set(files)):
        console.say(f"{old} is not made from these runs; remove it if it is old.")
    paths = [str(path) for path in files]
    result = {"runs": [run.pointer for run in runs], "files": paths}
    console.emit(result, "\n".join(paths), as_json)


def write(runs: list, out: Path, warning: str = "") -> list[Path]:
    """Write the tables and figures of finished runs into a folder; return the files.

    Args:
        warning: what stands first in the note of every table.
    """
    from drawbench import tables
    from drawbench.cli import console
    from drawbench.figures import results, style

    files = []
    for table in tables.make(runs):
        files += replace(table, note=f"{warning} {table.note}".strip()).save(out / "tables")
    for figure in results.make(runs, console.say):
        files += style.save(figure.figure, out / "figures", figure.name, formats=("pdf", "png"))
    return files
