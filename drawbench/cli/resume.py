"""``drawbench resume``."""

from pathlib import Path

import click

from drawbench.cli import options, sharing


@click.command(
    epilog="""\b
Examples:
  drawbench resume results/runs/classify-draw-8-seed0
  drawbench resume RUN --processes 1
"""
)
@options.RUN_ARGUMENT
@sharing.PROCESSES
@options.DATASETS
@options.SOURCES
@options.common
def command(
    run: Path, processes: int | None, datasets: Path, sources: Path | None, as_json: bool
) -> None:
    """Go on with a run exactly where it stopped.

    The result is the same to the bit as if it had never stopped, for the same versions and the same
    number of threads and of processes (the run's own, unless another is given; with that it is the
    same to rounding). A run that is finished is measured again and its figures are drawn again.
    """
    from drawbench.cli import console, running

    opened = running.open_run(run)
    sharing.start(processes, opened.config.training.processes)
    kind = running.KINDS[opened.config.task]
    screen = console.Console()
    kind.finish(kind.experiment(opened.config, datasets, sources, screen), opened, screen, as_json)
