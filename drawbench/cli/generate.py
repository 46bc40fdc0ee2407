"""``drawbench generate``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options, sharing
from drawbench.config import Generate

# The recipe of a data set unless another is given.
RECIPES = {name: name for name in ("mnist", "mnist2", "svhn", "cifar10", "folder")}


@click.command(
    epilog="""\b
Examples:
  drawbench generate                                     30 minutes on binarised MNIST
  drawbench generate --no-attention --glimpses 20        the same without windows
  drawbench generate --dataset mnist2                    two digits on a large canvas
  drawbench generate --dataset folder --images photos/   your own pictures
  drawbench generate --from RUN --seed 3                 other samples and films of a trained model
Settings can come from the environment too: DRAWBENCH_GENERATE_GLIMPSES=32.
"""
)
@options.recipe(Generate)
@options.settings(Generate)
@click.option("--no-attention", is_flag=True, help="The same as --attention none.")
@click.option(
    "--from",
    "origin",
    type=click.Path(path_type=Path),
    help="Train nothing: measure and draw with the model of this run.",
)
@click.option(
    "--pictures",
    type=click.IntRange(1, 100),
    default=16,
    show_default=True,
    help="Samples and reconstructions to draw.",
)
@click.option(
    "--out",
    type=options.folder,
    help="With --from: where the pictures go.  [default: the run's folder]",
)
@click.option("--run", "name", help="Name of the run folder.  [default: made from the settings]")
@options.FORCE
@options.RUNS
@options.DATASETS
@options.SOURCES
@options.common
def command(
    recipe: str | None,
    given: dict[str, Any],
    no_attention: bool,
    origin: Path | None,
    pictures: int,
    out: Path | None,
    name: str | None,
    force: bool,
    runs: Path,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Train a network that draws, measure the bound on its likelihood, and film it drawing.

    Writes a run folder with the configuration, the learning curve, the best weights, the result,
    pictures and films.
    """
    if origin is not None:
        seed, many = given.pop("seed", 0), given.pop("processes", None)
        if given or no_attention or recipe or name:
            unwanted = next(
                iter(
                    [
                        *given,
                        *(["no_attention"] if no_attention else []),
                        *(["recipe"] if recipe else []),
                        "run",
                    ]
                )
            )
            raise click.UsageError(
                f"--from takes a trained model as it is; leave out --{unwanted.replace('_', '-')}"
            )
        sharing.start(many)
        from drawbench.cli import console, generating

        generating.draw_from(
            origin, seed, pictures, out, datasets, sources, console.Console(), as_json
        )
        return
    if out is not None:
        raise click.UsageError(
            "--out goes with --from RUN; the place of a new run is --runs DIR and --run NAME"
        )
    if no_attention:
        if given.get("attention", "none") != "none":
            raise click.UsageError(
                f"--no-attention and --attention {given['attention']} contradict each other"
            )
        given["attention"] = "none"
    config = sharing.configured(
        options.configure(Generate, recipe or RECIPES[given.get("dataset", "mnist")], given), given
    )
    from drawbench.cli import console, generating, running
    from drawbench.runs import Run, command_line, refuse_taken

    screen = console.Console()
    folder = running.folder_for(runs, name, generating.name_of(config))
    refuse_taken(folder, force)  # before minutes of work, not after
    experiment = generating.experiment(config, datasets, sources, screen)
    experiment.plan()
    run = Run.create(folder, experiment.config, command=command_line(), force=force)
    generating.finish(experiment, run, screen, as_json, pictures)
