"""``drawbench generate``."""

import contextlib
from pathlib import Path
from typing import Any

import click

from drawbench.cli import options, sharing
from drawbench.config import Generate

# The recipe of a data set unless another is given.
RECIPES = ("mnist", "mnist2", "svhn", "cifar10", "folder")


@click.command(
    cls=options.TrainingCommand,
    epilog="""\b
Examples:
  drawbench generate                                     30 minutes on binarised MNIST
  drawbench generate --no-attention --glimpses 20        the same without windows
  drawbench generate --dataset mnist2                    two digits on a large canvas
  drawbench generate --dataset folder --images photos/   your own pictures
  drawbench generate --model mymodel:network             your own generator, see docs/extending.md
  drawbench generate --from RUN --seed 3                 more samples of a trained model
Settings can come from the environment too: DRAWBENCH_GENERATE_GLIMPSES=32.
""",
)
@options.recipe(Generate)
@options.settings(Generate)
@click.option("--no-attention", is_flag=True, help="The same as --attention none.")
@click.option(
    "--from",
    "origin",
    type=click.Path(path_type=Path),
    help="Do not train: draw samples with the model of this run.",
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
    help="With --from: where the pictures go.  [default: the run's figures]",
)
@options.NEW_RUN
def command(
    recipe: str | None,
    given: dict[str, Any],
    no_attention: bool,
    origin: Path | None,
    pictures: int,
    out: Path | None,
    trust: tuple[str, ...],
    **place: Any,
) -> None:
    """Train a network that draws, measure the bound on its likelihood, and show it drawing.

    Writes a run folder with the configuration, the learning curve, the best weights, the result,
    pictures and animations.
    """
    if origin is not None:
        seed = given.pop("seed", 0)
        unwanted = [*given, *(name for name in ("recipe",) if recipe)]
        unwanted += ["no-attention"] if no_attention else []
        unwanted += ["run"] if place["name"] else []
        if unwanted:
            raise click.UsageError(
                f"--from takes a trained model as it is; leave out "
                f"--{unwanted[0].replace('_', '-')}"
            )
        _draw(origin, seed, pictures, out, trust, place["as_json"])
        return
    if out is not None:
        raise click.UsageError(
            "--out goes with --from RUN; a new run's place is --runs DIR and --run NAME"
        )
    if no_attention:
        if given.get("attention", "none") != "none":
            raise click.UsageError(
                f"--no-attention contradicts --attention {given['attention']}; give one of them"
            )
        given["attention"] = "none"
    dataset = given.get("dataset", "mnist")
    usual = dataset if dataset in RECIPES and given.get("model", "draw") == "draw" else None
    config = sharing.configured(options.configure(Generate, recipe or usual, given), given)
    from drawbench.cli import training

    training.start(config, trusted=options.trusted(given, trust), pictures=pictures, **place)


def _draw(
    folder: Path, seed: int, pictures: int, out: Path | None, trust: tuple[str, ...], as_json: bool
) -> None:
    """Draw samples with a trained model; its data need not be there."""
    from drawbench import tasks
    from drawbench.cli import console
    from drawbench.errors import Problem
    from drawbench.tasks.pictures import draw_samples
    from drawbench.user_code import blamed

    run, config, model = tasks.load_run(folder, trust)
    if config.task != "generate":
        raise Problem(f"{folder} is a run of {config.task!r}, not of a generator")
    place, name = out or run.figures, config.model.model
    with blamed(name) if ":" in name else contextlib.nullcontext():
        drawn = draw_samples(model, None, place, pictures, seed, suffix=f"-seed{seed}")
    if not drawn:
        raise Problem(f"{name} has no method sample, so it cannot draw without an image")
    paths = [str(path) for path in drawn]
    text = "\n".join(["Written:", *(f"  {path}" for path in paths)])
    console.emit({"run": str(folder), "seed": seed, "figures": paths}, text, as_json)
