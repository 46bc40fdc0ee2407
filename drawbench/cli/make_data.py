"""``drawbench make-data``."""

import shlex
from pathlib import Path
from typing import Any

import click

from drawbench.cli import experiment, options
from drawbench.config import MakeData

RECIPES = {"cluttered": "cluttered-100", "mnist2": "two-digits-60"}  # by data set
DATASETS = (*RECIPES, "captions")
_COUNTS = [
    click.option(
        f"--{part}",
        type=click.IntRange(1),
        help=f"Number of {part} images.  [default: one per digit]",
    )
    for part in ("train", "validation", "test", "held-out")
]


@click.command(
    "make-data",
    epilog="""\b
Examples:
  drawbench make-data cluttered                        100x100, 8 pieces, as in the paper
  drawbench make-data cluttered --recipe cluttered-60  60x60, 4 pieces
  drawbench make-data mnist2 --source digits           two embedded digits: needs no network
  drawbench make-data captions                         digits, and sentences that say where
  drawbench make-data cluttered --png 100              100 images of each part as files, too
""",
)
@click.argument("dataset", type=click.Choice(DATASETS))
@experiment.recipe(MakeData)
@experiment.settings(MakeData, skip=("dataset", "data", "data_seed"))
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
@click.option(
    "--png",
    type=click.IntRange(1),
    metavar="N",
    help="Also write the first N images of each part as files, png/PART/LABEL/NUMBER.png (as "
    "torchvision's ImageFolder reads them), with png/labels.csv.",
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
    png: int | None,
    force: bool,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
    **counts: int | None,
) -> None:
    """Make a data set of digits on a canvas: cluttered, mnist2 (two digits), or captions."""
    from drawbench import figures
    from drawbench.cli import console
    from drawbench.data import cards, digits, generated, making, sentences, sources_root, stored
    from drawbench.data.scenes import scene_of

    given = {**given, "dataset": dataset} | ({} if seed is None else {"data_seed": seed})
    settings = experiment.configure(MakeData, recipe or RECIPES.get(dataset), given).data
    screen = console.Console()
    captioned = dataset == "captions"
    scene: cards.Recipe = sentences.CaptionScene() if captioned else scene_of(settings)
    if counts["held_out"] and not captioned:
        raise click.UsageError("--held-out is for captions: no other data set has such a part")
    source = digits.load(settings.source, sources_root(sources), warn=screen.say)
    numbers = {split: count for split, count in counts.items() if count}
    seed = settings.data_seed
    folder = out or making.default_folder(datasets, scene, dataset, source, seed, numbers)
    if png is not None or force:  # those of a set that is replaced would stay beside the new one
        generated.check_no_pictures(folder)
    card = making.write(
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
    figures.save(_montage(sample), folder, "montage")
    if png is not None:
        generated.write_pictures(folder, png)
    lines = [
        f"{folder}: {scene.canvas}x{scene.canvas}, {_contents(settings)} from {source.name}.",
        *(f"  {name}.npz  {n:,} images" for name, n in card["counts"].items()),
        "  card.json, croissant.json, montage.png",
        *([] if png is None else [f"  {generated.PICTURES}/  pictures, and labels.csv"]),
        f"Next: {console.this_command()} {_next(settings, folder)}",
    ]
    console.emit({"folder": str(folder), **card}, "\n".join(lines), as_json)


def _montage(part: Any) -> Any:
    """Show the first scenes of a stored part with their captions or labels."""
    from drawbench import figures
    from drawbench.data import sentences

    if part.captions is None:
        return figures.montage(part.images[:64], part.labels[:64])
    texts = [sentences.text(words) for words in part.captions[:20]]
    return figures.captioned(part.images[:20, None] / 255, texts)


def _contents(settings: Any) -> str:
    if settings.dataset == "captions":
        return "captioned digits"
    plural = "s" if settings.digits > 1 else ""
    return f"{settings.digits} digit{plural}, {settings.clutter} pieces of clutter, digits"


def _next(settings: Any, folder: Path) -> str:
    """Return a command that uses the data set."""
    one = settings.dataset == "cluttered" and settings.digits == 1
    return f"{'classify' if one else 'generate'} --data {shlex.quote(str(folder))}"
