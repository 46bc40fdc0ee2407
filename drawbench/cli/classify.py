"""``drawbench classify``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options, sharing
from drawbench.config import Classify


@click.command(
    epilog="""\b
Examples:
  drawbench classify --glimpses 8                      30 minutes on 100x100, 8 pieces of clutter
  drawbench classify --recipe paper-8                  the run behind the published 8-glimpse number
  drawbench classify --processes 4                     share each update's images among four processes
  drawbench classify --recipe ram                      hard attention; other opponents have recipes too
  drawbench classify --canvas 60 --clutter 4 --epochs 20
  drawbench classify --window-map linear --steps 5000  the paper's unbounded map, to see what it does
Settings can come from the environment too: DRAWBENCH_CLASSIFY_GLIMPSES=4.
"""
)
@options.recipe(Classify, "cluttered-100")
@options.settings(Classify, skip=("dataset", "digits"))
@click.option("--run", "name", help="Name of the run folder.  [default: made from the settings]")
@options.FORCE
@options.RUNS
@options.DATASETS
@options.SOURCES
@options.common
def command(
    recipe: str,
    given: dict[str, Any],
    name: str | None,
    force: bool,
    runs: Path,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Train a classifier that looks through a few small windows, then test it.

    Writes a run folder with the configuration, the learning curve, the best weights, the result and
    figures.
    """
    config = sharing.configured(options.configure(Classify, recipe, given), given)
    from drawbench.cli import classifying, console, running
    from drawbench.runs import Run, command_line, refuse_taken

    screen = console.Console()
    folder = running.folder_for(runs, name, classifying.name_of(config))
    refuse_taken(folder, force)  # before minutes of work, not after
    experiment = classifying.experiment(config, datasets, sources, screen)
    experiment.plan()
    run = Run.create(folder, experiment.config, command=command_line(), force=force)
    classifying.finish(experiment, run, screen, as_json)
