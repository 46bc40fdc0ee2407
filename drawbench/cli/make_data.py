"""``drawbench make-data``."""

import shlex
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
@options.settings(MakeData, skip=("dataset", "data", "data_seed"))
@click.option(
    "--data-seed",
    "--seed",
    "seed",
    type=click.IntRange(0),
    envvar=["DRAWBENCH_MAKE_DATA_DATA_SEED", "DRAWBENCH_MAKE_DATA_SEED"],
    help="Seed of everything random in the files; --data-seed of the training commands.  "
    "[default: 0]",
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
    numbers = {split: count for split, count in counts.items() if count}
    seed = settings.data_seed
    folder = out or stored.default_folder(datasets, scene, dataset, source, seed, numbers)
    card = stored.write(
        folder,
        scene,
        source,
        dataset,
        seed,
        numbers,
        force,
        lambda done, total: screen.progress(done, total, {}),
        screen.say,
    )
    screen.close()
    sample = stored.load(folder, "train")
    figures.save(figures.montage(sample.images[:64], sample.labels[:64]), folder, "montage")
    next_command = "classify" if scene.digits == 1 else "generate"
    lines = [
        f"{folder}: {scene.canvas}x{scene.canvas}, {scene.digits} digit"
        f"{'s' if scene.digits > 1 else ''}, {scene.clutter} pieces of clutter, digits from "
        f"{source.name}.",
        *(f"  {name}.npz  {n:,} images" for name, n in card["counts"].items()),
        "  card.json, montage.png",
        f"Next: {console.this_command()} {next_command} --data {shlex.quote(str(folder))}",
    ]
    console.emit({"folder": str(folder), **card}, "\n".join(lines), as_json)
