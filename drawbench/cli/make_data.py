"""``drawbench make-data``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options
from drawbench.config import MakeData

# What a data set is unless a recipe or a flag says otherwise.
RECIPES = {"cluttered": "cluttered-100", "mnist2": "two-digits-60"}


@click.command(
    "make-data",
    epilog="""\b
Examples:
  drawbench make-data cluttered                        100x100, 8 pieces, as in the paper
  drawbench make-data cluttered --recipe cluttered-60  60x60, 4 pieces
  drawbench make-data mnist2 --source digits           two embedded digits: needs no network
""",
)
@click.argument("dataset", type=click.Choice(list(RECIPES)))
@options.recipe(MakeData)
@options.settings(MakeData, skip=("dataset", "data_seed"))
@click.option(
    "--seed", type=click.IntRange(0), help="Seed of everything random in the files.  [default: 0]"
)
@click.option(
    "--train", type=click.IntRange(1), help="Training images.  [default: the digits there are]"
)
@click.option(
    "--validation",
    type=click.IntRange(1),
    help="Validation images.  [default: the digits there are]",
)
@click.option(
    "--test", type=click.IntRange(1), help="Test images.  [default: the digits there are]"
)
@click.option(
    "--out",
    type=options.folder,
    help="The folder to make.  [default: one named after the data set, in --datasets]",
)
@options.FORCE
@options.DATASETS
@options.SOURCES
@options.common
def command(
    dataset: str,
    recipe: str | None,
    given: dict[str, Any],
    seed: int | None,
    train: int | None,
    validation: int | None,
    test: int | None,
    out: Path | None,
    force: bool,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Make a data set of digits on a canvas: cluttered, or mnist2 (two digits)."""
    from drawbench import figures
    from drawbench.cli import console
    from drawbench.data import sources as origins
    from drawbench.data import store
    from drawbench.tasks.classify import scene_of

    chosen = {**given, "dataset": dataset, **({} if seed is None else {"data_seed": seed})}
    config = options.configure(MakeData, recipe or RECIPES[dataset], chosen)
    screen = console.Console()
    scene = scene_of(config.data)
    source = origins.load(config.data.source, origins.sources_root(sources), warn=screen.say)
    folder = out or store.default_folder(
        datasets, scene, dataset, source.name, config.data.data_seed
    )
    counts = {
        name: n
        for name, n in zip(origins.SPLITS, (train, validation, test), strict=True)
        if n is not None
    }
    card = store.write(
        folder,
        scene,
        source,
        dataset,
        config.data.data_seed,
        counts=counts,
        force=force,
        progress=lambda done, total: screen.progress(done, total, {}),
        say=screen.say,
    )
    screen.close()
    sample = store.load(folder, "train")
    figures.save(figures.montage(sample.images[:64], sample.labels[:64]), folder, "montage")
    many = "digits" if scene.digits > 1 else "digit"
    lines = [
        f"{folder}: {scene.canvas}x{scene.canvas}, {scene.digits} {many}, {scene.clutter} pieces of clutter, digits from {source.name}.",
        *(f"  {name}.npz  {n:,} images" for name, n in card["counts"].items()),
        "  card.json, montage.png",
        "Next: drawbench classify --glimpses 8"
        if scene.digits == 1
        else f"Next: look at {folder / 'montage.png'}",
    ]
    console.emit({"folder": str(folder), **card}, "\n".join(lines), as_json)
