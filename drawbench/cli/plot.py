"""``drawbench plot``."""

import math
from pathlib import Path
from typing import Any

import click

from drawbench.cli import options
from drawbench.errors import Problem

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(
    cls=options.DefaultGroup,
    default="runs",
    epilog="""\b
Examples:
  drawbench plot results/runs/quickstart       curves, glimpses, animations
  drawbench plot results/runs/photos --images photos/   a run on a folder of images
  drawbench plot explained draw-mnist results/runs/draw-20-no-attention
  drawbench plot attention                     what a window does, on an example
  drawbench plot attention --window 0.2,-0.3,0,-1,0 --image photo.png --out zoom.png
""",
)
def command() -> None:
    """Draw the figures of runs (plot RUN...), or explain the attention (plot attention)."""


@command.command("runs")
@click.argument("runs", nargs=-1, required=True, type=options.run)
@click.option(
    "--out",
    type=options.folder,
    help="Folder to write to, a subfolder for each run.  [default: the run's; for an exported copy "
    "results/figures]",
)
@options.PLACE
@options.common
def plot_runs(runs: tuple[Path, ...], out: Path | None, as_json: bool, **place: Any) -> None:
    """Draw all figures of finished runs again."""
    from drawbench import tasks
    from drawbench.cli import console, training
    from drawbench.tasks import task as lifecycle

    figures: dict[str, list[str]] = {}
    opened = [tasks.open_run(folder) for folder in dict.fromkeys(runs)]
    for run in opened:
        if out is not None or not training.writable(run):
            run.figures = (out or Path("results", "figures")) / run.name
    places = [run.figures for run in opened]
    if twice := [place for place in places if places.count(place) > 1]:
        raise Problem(
            f"the figures of two runs would go to {twice[0]}: give each an --out of its own"
        )
    for run in opened:
        result = run.result()  # before the data are loaded: a run need not be finished
        screen = console.Console()
        task = training.create_to_measure(run, screen=screen, **place)
        model = lifecycle.best_model(task, run)
        screen.close()
        paths = task.draw(run, model, result, training.PICTURES)
        figures[str(run.folder)] = [str(path) for path in paths]
    text = "\n".join(path for paths in figures.values() for path in paths)
    console.emit({"figures": figures}, text, as_json)


@command.command(
    "errors",
    epilog="""\b
Examples:
  drawbench plot errors results/runs/NAME
  drawbench plot errors results/published/eye-4 --out results/own/errors
""",
)
@options.RUN_ARGUMENT
@click.option("--count", type=click.IntRange(1, 64), default=16, help="Misread images to show.")
@click.option("--out", type=options.folder, help="Folder to write to.  [default: the run's]")
@options.PLACE
@options.common
def plot_errors(run: Path, count: int, out: Path | None, as_json: bool, **place: Any) -> None:
    """Show where a classifier of cluttered digits errs: the error against the clutter on the digit,
    on test and on training digits, and the misread images it was surest of.
    """
    from drawbench import tasks
    from drawbench.cli import console, training
    from drawbench.tasks import pictures
    from drawbench.tasks import task as lifecycle

    opened = tasks.open_run(run)
    if opened.config.task != "classify":
        raise click.UsageError(f"{run} is a run of {opened.config.task!r}, which has no errors")
    if out is None and not training.writable(opened):
        raise click.UsageError(f"{run} is an exported copy and stays as it is; give --out")
    screen = console.Console()
    task = training.create_to_measure(opened, screen=screen, **place)
    model = lifecycle.best_model(task, opened)
    with training.stopping(screen) as flag:
        folder = out or opened.folder
        table, paths = pictures.mistakes(folder, model, task.dataset, count, flag.check)
    screen.close()
    shown = table.assign(
        **{name: table[name].round(2) for name in ("clutter", "error", "low", "high")}
    )
    lines = [console.table(shown.to_dict("records")), "", *map(str, paths)]
    result = {"run": str(run), "errors": table.to_dict("records"), "files": [*map(str, paths)]}
    console.emit(result, "\n".join(lines), as_json)


@command.command("explained")
@click.argument("run", type=options.run)
@click.argument("other", type=options.run)
@click.option(
    "--reader",
    type=options.run,
    help="A classifier that reads the drawings.  [default: the package's, for 28x28 digits]",
)
@click.option("--seed", type=click.IntRange(0, 2**62), default=0, help="Seed of the samples.")
@click.option(
    "--out",
    type=options.folder,
    default=Path("results/figures/explained"),
    help="Folder to write to.",
)
@options.TRUST
@options.common
def plot_explained(
    run: Path,
    other: Path,
    reader: Path | None,
    seed: int,
    out: Path,
    trust: tuple[str, ...],
    as_json: bool,
) -> None:
    """Explain DRAW by two generators, with and without attention: drawings step by step, windows,
    the KL of the steps, and the moment at which a drawing changes its mind.
    """
    from drawbench import tasks
    from drawbench.cli import console
    from drawbench.tasks import explained

    loaded = [tasks.load_run(folder, trust) for folder in (run, other)]
    for one in loaded:
        if one.config.task != "generate":
            raise click.UsageError(
                f"{one.run.folder} is a run of {one.config.task!r}, which draws nothing"
            )
    if reader is not None:
        read = _classifier(reader, trust)
    elif loaded[0].model.size == (1, 28, 28):
        from drawbench.evaluation.reader import load_reader

        read = load_reader()
    else:
        read = None
        console.say("No reader fits these pictures, so none says what they show; see --reader.")
    made = explained.draw(
        [one.run for one in loaded], [one.model for one in loaded], read, out, seed
    )
    paths = [str(path) for path in made.paths]
    lines = [
        f"{name}: {share:.1f}% of {explained.SAMPLES} samples are read as another class half-way."
        for name, share in made.changed_after_half.items()
    ]
    result = {"figures": paths, "changed_after_half_percent": made.changed_after_half}
    console.emit(result, "\n".join([*lines, *paths]), as_json)


def _classifier(folder: Path, trust: tuple[str, ...]) -> Any:
    """Return a reader of pictures: the last answer of a classifier."""
    from drawbench import tasks

    loaded = tasks.load_run(folder, trust)
    if loaded.config.task != "classify":
        raise click.UsageError(f"{folder} is a run of {loaded.config.task!r}, which reads nothing")
    return lambda pictures: loaded.model(pictures).logits[:, -1]


class WindowNumbers(click.ParamType):
    """Five numbers: centre x, centre y, log-variance, log-stride, log-intensity."""

    name = "five numbers"

    def convert(self, value, param, ctx) -> tuple[float, ...]:
        try:
            numbers = tuple(float(word) for word in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 5 or not all(math.isfinite(number) for number in numbers):
            self.fail(f"{value!r} is not five numbers such as 0.2,-0.3,0,-1,0", param, ctx)
        return numbers


@command.command("attention")
@click.option(
    "--window",
    "windows",
    type=WindowNumbers(),
    multiple=True,
    help="g~X,g~Y,log s2,log d~,log gamma; repeat for more rows.  [default: aimed at the digit]",
)
@click.option(
    "--patch", type=click.IntRange(1, 128), default=12, help="Side of the patch, in filters."
)
@click.option("--image", type=FILE, help="An image file.  [default: a cluttered digit]")
@click.option("--seed", type=click.IntRange(0, 2**62), default=0, help="Seed of the example image.")
@click.option(
    "--out",
    type=FILE,
    default=Path("results/figures/attention.png"),
    help="The figure to write, .png, .pdf or .svg.",
)
@options.common
def plot_attention(
    windows: tuple, patch: int, image: Path | None, seed: int, out: Path, as_json: bool
) -> None:
    """Show the grid, the filters, the patch read and what a write puts back, for some windows."""
    import torch

    from drawbench import attention, figures
    from drawbench.cli import console
    from drawbench.data import image_files

    form = out.suffix[1:]
    if form not in ("png", "pdf", "svg"):
        raise click.UsageError(f"--out must end in .png, .pdf or .svg, got {out.name}")
    if image:
        picture = torch.from_numpy(image_files.read(image))
        box = (0, 0, *picture.shape[-2:])
    else:
        picture, box = _example(seed)
    height, width = picture.shape[-2:]
    numbers = torch.tensor(windows or _windows_at(box, height, width, patch))
    window = attention.window(numbers, height, width, patch)
    figure = figures.attention_explained(picture, window, patch)
    paths = [str(path) for path in figures.save(figure, out.parent, out.stem, formats=(form,))]
    console.emit({"figures": paths}, "\n".join(paths), as_json)


def _example(seed: int) -> tuple[Any, tuple[int, ...]]:
    """Return a cluttered scene of embedded digits, uint8 (1, 100, 100), and its digit's box."""
    import torch

    from drawbench.data import digits, scenes

    part = digits.load("digits", Path()).splits["test"]
    rendering = scenes.fresh(part, scenes.Scene(), torch.tensor([seed]), 0, "example")
    return rendering.images.reshape(1, 100, 100), tuple(rendering.boxes[0, 0].tolist())


def _windows_at(
    box: tuple[int, ...], height: int, width: int, patch: int
) -> list[tuple[float, ...]]:
    """Return numbers of four windows: wide; sharp on a box; blurred on it; leaving the image.

    Args:
        box: top, left, height and width, pixels from 0.
    """
    top, left, tall, wide = box
    x = 2 * (left + (wide + 1) / 2) / (width + 1) - 1
    y = 2 * (top + (tall + 1) / 2) / (height + 1) - 1
    side = max(height, width, 2) - 1
    zoom = min(math.log(max(tall, wide) / side), -0.7)  # of a box that is the image: its middle

    def numbers(x: float, y: float, zoom: float, blur: float) -> tuple[float, ...]:
        """Return numbers of filters ``blur`` strides wide."""
        stride = side / max(patch - 1, 1) * math.exp(zoom)
        return x, y, 2 * math.log(blur * stride), zoom, 0.0

    corner = math.copysign(0.9, x), math.copysign(0.7, y)
    return [
        numbers(0, 0, 0, 0.5),
        numbers(x, y, zoom, 0.4),
        numbers(x, y, zoom, 1.6),
        numbers(*corner, -0.7, 0.4),
    ]
