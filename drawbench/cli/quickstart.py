"""``drawbench quickstart``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options
from drawbench.config import Classify


@click.command(
    epilog="""\b
Examples:
  drawbench quickstart
  drawbench quickstart --time-budget 1
"""
)
@options.settings(Classify, skip=("dataset", "digits", "source", "processes"))
@click.option(
    "--run",
    "name",
    default="quickstart",
    show_default=True,
    help="Name of the run folder; an earlier one is replaced.",
)
@options.RUNS
@options.DATASETS
@options.common
def command(given: dict[str, Any], name: str, runs: Path, datasets: Path, as_json: bool) -> None:
    """The whole tour without network or data: train, test and watch a network find a digit in
    clutter.

    Uses the small digits that come with scikit-learn; takes two to three minutes on two cores.
    """
    from drawbench.cli import classifying, console, running
    from drawbench.runs import Run, command_line

    config = options.configure(Classify, "quickstart", given)
    screen = console.Console()
    folder = running.folder_for(runs, name, classifying.name_of(config))
    experiment = classifying.experiment(config, datasets, None, screen)
    experiment.plan()
    run = Run.create(folder, experiment.config, command=command_line(), force=True)
    classifying.finish(experiment, run, screen, as_json)
    console.say(f"""
What to try next:
  drawbench plot {folder}                       all figures of this run again
  drawbench plot attention                      what the five numbers of a window do
  drawbench evaluate {folder} --clutter 0..8..2
  drawbench make-data cluttered                 real MNIST, 100x100 (downloads it once)
  drawbench classify --glimpses 8               the paper's task
  drawbench doctor                              what is here and what is missing""")
