"""``drawbench make-data``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options
from drawbench.config import MakeData

RECIPES = {"cluttered": "cluttered-100", "mnist2": "two-digits-60"}  # by data set
_COUNTS = [
    click.option(
        f"--{split}", type=click.IntRange(1), help="Images of this part.  [default: one per digit]"
    )
    for split in ("train", "validation", "test")
]


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
@options.together(*_COUNTS)
@click.option(
    "--out",
    type=options.folder,
    help="Folder to write.  [default: one named after the data set, in --datasets]",
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
    out: Path | None,
    force: bool,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
    **counts: int | None,
) -> None:
    """Make a data set of digits on a canvas: cluttered, or mnist2 (two digits)."""
    from drawbench import figures
    from drawbench.cli import console
    from drawbench.data import digits, sources_root, stored
    from drawbench.data.scenes import scene_of

    given = {**given, "dataset": dataset} | ({} if seed is None else {"data_seed": seed})
    settings = options.configure(MakeData, recipe or RECIPES[dataset], given).data
    screen = console.Console()
    scene = scene_of(settings)
    source = digits.load(settings.source, sources_root(sources), warn=screen.say)
    folder = out or stored.default_folder(datasets, scene, dataset, source.name, settings.data_seed)
    card = stored.write(
        folder,
        scene,
        source,
        dataset,
        settings.data_seed,
        {split: count for split, count in counts.items() if count},
        force,
        lambda done, total: screen.progress(done, total, {}),
        screen.say,
    )
    screen.close()
    sample = stored.load(folder, "train")
    figures.save(figures.montage(sample.images[:64], sample.labels[:64]), folder, "montage")
    next_command = "classify --glimpses 8" if scene.digits == 1 else "generate --dataset mnist2"
    lines = [
        f"{folder}: {scene.canvas}x{scene.canvas}, {scene.digits} digit"
        f"{'s' if scene.digits > 1 else ''}, {scene.clutter} pieces of clutter, digits from "
        f"{source.name}.",
        *(f"  {name}.npz  {n:,} images" for name, n in card["counts"].items()),
        "  card.json, montage.png",
        f"Next: drawbench {next_command}",
    ]
    console.emit({"folder": str(folder), **card}, "\n".join(lines), as_json)
