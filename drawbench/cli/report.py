"""``drawbench report``."""

from pathlib import Path

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench report                                    from results/published and results/runs
  drawbench report results/published --out page.html  from those runs alone
"""
)
@options.PLACES
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("results/report.html"),
    help="The page to write.",
)
@options.common
def command(places: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Make one page of finished runs: headlines, animations, sortable tables and figures.

    It is a single file that needs no network: open it with a double click, or send it to somebody.
    """
    from drawbench import files, report
    from drawbench.cli import console

    runs = options.records_in(places)
    content = report.page(runs, console.say).encode()
    files.write_atomically(out, content)
    result = {"page": str(out), "bytes": len(content), "runs": [record.pointer for record in runs]}
    console.emit(result, f"{out} ({len(content) / 1e6:.1f} MB)", as_json)
