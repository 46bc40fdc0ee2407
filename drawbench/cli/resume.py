"""``drawbench resume``."""

from pathlib import Path

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Example:
  drawbench resume results/runs/classify-draw-8-seed0
"""
)
@options.RUN_ARGUMENT
@options.DATASETS
@options.SOURCES
@options.common
def command(run: Path, datasets: Path, sources: Path | None, as_json: bool) -> None:
    """Go on with a run exactly where it stopped.

    The result is the same to the bit as if it had never stopped, for the same number of threads and the same versions. A run that is
    finished is measured again and its figures are drawn again.
    """
    from drawbench.cli import console, running

    opened = running.open_run(run)
    kind = running.KINDS[opened.config.task]
    screen = console.Console()
    kind.finish(kind.experiment(opened.config, datasets, sources, screen), opened, screen, as_json)
