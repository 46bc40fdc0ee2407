"""``drawbench classify``."""

from typing import Any

import click

from drawbench.cli import experiment, options, sharing
from drawbench.config import Classify


@click.command(
    cls=experiment.TrainingCommand,
    epilog="""\b
Examples:
  drawbench classify --glimpses 8                      30 minutes on 100x100, 8 pieces of clutter
  drawbench classify --recipe paper-8                  the run behind the published 8-glimpse number
  drawbench classify --recipe ram                      hard attention; other models have recipes too
  drawbench classify --canvas 60 --clutter 4 --epochs 20
  drawbench classify --data datasets/mine              a set made by make-data
  drawbench classify --dataset folder --images photos/ your own pictures, a subfolder per class
  drawbench classify --model mymodel:network           your own network, see docs/extending.md
  drawbench classify --recipe paper-8 --seeds 0..4     five runs of a row; again: what is missing
  drawbench classify --recipe RUN/config.json --patch 8   a run again, with one change
Settings can come from the environment too: DRAWBENCH_CLASSIFY_GLIMPSES=4.
""",
)
@experiment.recipe(Classify, "cluttered-100")
@experiment.settings(Classify, skip=("digits",))
@options.ROW
@options.NEW_RUN
def command(
    recipe: str | None,
    given: dict[str, Any],
    **wishes: Any,
) -> None:
    """Train a classifier that looks through a few small windows, then test it.

    Writes a run folder with the configuration, the learning curve, the best weights, the result and
    figures.
    """
    sharing.train(Classify, recipe, given, **wishes)
