"""``drawbench bench``."""

from typing import Any

import click

from drawbench.cli import options
from drawbench.config import Classify


@click.command(
    epilog="""\b
Examples:
  drawbench bench                        the paper's classifier, 8 glimpses on 100x100
  drawbench bench --threads 1 --rounds 20
  drawbench bench --canvas 60 --clutter 4 --glimpses 6
"""
)
@options.recipe(Classify, "cluttered-100")
@options.settings(Classify, skip=("dataset", "source", "digits", "steps", "epochs", "time_budget", "device", "precision"))
@click.option("--rounds", type=click.IntRange(3), default=10, show_default=True, help="Counted rounds; the median is given.")
@options.common
def command(recipe: str, given: dict[str, Any], rounds: int, as_json: bool) -> None:
    """Images per second: making data, and training the classifier, plain and fast, against its matrix products alone.

    Uses the embedded digits; their content does not matter to speed. Nothing else should run on the machine meanwhile.
    """
    from pathlib import Path

    import torch

    from drawbench import bench, runs
    from drawbench.cli import console
    from drawbench.data import sources

    config = options.configure(Classify, recipe, given)
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    source = sources.load("digits", Path())
    rows = [*bench.data_generation(config, source, rounds), *bench.training_step(config, source, rounds)]
    machine = runs.environment()
    text = f"{console.table(rows)}\n\n{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"
    console.emit({"rows": rows, "environment": machine}, text, as_json)
