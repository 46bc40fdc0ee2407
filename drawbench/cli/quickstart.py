"""``drawbench quickstart``."""

from typing import Any

import click

from drawbench.cli import experiment, options
from drawbench.config import Classify


@click.command(
    cls=experiment.TrainingCommand,
    epilog="""\b
Examples:
  drawbench quickstart
  drawbench quickstart --time-budget 1
""",
)
@experiment.settings(Classify, skip=("dataset", "digits", "source", "processes", "data"))
@click.option(
    "--run",
    "name",
    default="quickstart",
    help="Name of the run folder; an earlier one called quickstart is replaced.",
)
@options.QUIET
@options.RUNS
@options.DATASETS
@options.common
def command(given: dict[str, Any], name: str, quiet: bool, **place: Any) -> None:
    """Take the whole tour without network or data: watch a network find a digit in clutter.

    Uses the small digits that come with scikit-learn; takes two to three minutes on two cores.
    """
    from drawbench.cli import console, training

    folder = training.start(
        experiment.configure(Classify, "quickstart", given),
        name=name,
        force=name == "quickstart",
        sources=None,
        trust=experiment.trusted(given, ()),
        quiet=quiet,
        **place,
    )
    if quiet:
        return
    drawbench = console.this_command()
    console.say(f"""
What to try next:
  {drawbench} plot {folder}                       all figures of this run again
  {drawbench} plot attention                      what the five numbers of a window do
  {drawbench} evaluate {folder} --clutter 0..8..2
  {drawbench} make-data cluttered                 real MNIST, 100x100 (downloads it once)
  {drawbench} classify --glimpses 8               the paper's task
  {drawbench} doctor                              what is here and what is missing""")
    if line := console.how_to_call():
        console.say(f"To call it drawbench in this shell: {line}")


command.recipe = "quickstart"
