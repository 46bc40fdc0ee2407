"""``drawbench tables``."""

from pathlib import Path

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench tables                                  from results/published and results/runs into results
  drawbench tables results/published --out paper    from those runs, into paper/tables and paper/figures
  drawbench tables RUN RUN                          from single runs
"""
)
@options.PLACES
@click.option(
    "--out",
    type=options.folder,
    default=Path("results"),
    show_default=True,
    help="Folder for tables and figures.",
)
@options.common
def command(places: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Make the tables and figures of finished runs again, from their folders alone.

    The paper's tables with ours beside them, settings, robustness and cost, each as CSV, Markdown
    and LaTeX; figures as PDF and PNG. Runs that differ in their seed alone are one row. Nothing is
    trained or measured, and the same runs give the same bytes.
    """
    from drawbench import tables
    from drawbench.cli import console
    from drawbench.figures import results, style

    found = options.records_in(places)
    made = [path for table in tables.make(found) for path in table.save(out / "tables")]
    for drawn in results.make(found, console.say):
        made += style.save(drawn.figure, out / "figures", drawn.name, formats=("pdf", "png"))
    for old in sorted(set((out / "tables").glob("*.*")) - set(made)):
        console.say(f"{old} is not made from these runs; remove it if it is old.")
    paths = [str(path) for path in made]
    console.emit(
        {"runs": [record.pointer for record in found], "files": paths}, "\n".join(paths), as_json
    )
