"""``drawbench plot``."""

from pathlib import Path

import click

from drawbench.cli import options


class RunsByDefault(click.Group):
    """``plot RUN...`` is ``plot runs RUN...``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["runs", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=RunsByDefault,
    epilog="""\b
Examples:
  drawbench plot results/runs/quickstart       curves, glimpse paths, film
  drawbench plot attention                     what a window does, on an example
  drawbench plot attention --window 0.2,-0.3,0,-1,0 --image photo.png --out zoom.png
""",
)
def command() -> None:
    """Draw the figures of runs (plot RUN...), or the attention explained (plot attention)."""


@command.command("runs")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.DATASETS
@options.SOURCES
@options.common
def plot_runs(runs: tuple[Path, ...], datasets: Path, sources: Path | None, as_json: bool) -> None:
    """Draw all figures of finished runs again, into their folders."""
    from drawbench.cli import console, running

    drawn: dict[str, list[str]] = {}
    for folder in runs:
        opened = running.open_run(folder)
        kind = running.KINDS[opened.config.task]
        screen = console.Console()
        experiment = kind.experiment(opened.config, datasets, sources, screen)
        screen.close()
        drawn[str(folder)] = [str(path) for path in kind.redraw(experiment, opened)]
    console.emit(
        {"figures": drawn}, "\n".join(path for paths in drawn.values() for path in paths), as_json
    )


class WindowNumbers(click.ParamType):
    """Five numbers: centre x, centre y, log-variance, log-stride, log-intensity."""

    name = "five numbers"

    def convert(self, value, param, ctx) -> tuple[float, ...]:
        import math

        try:
            numbers = tuple(float(word) for word in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 5 or not all(math.isfinite(number) for number in numbers):
            self.fail(f"{value!r} is not five numbers such as 0.2,-0.3,0,-1,0", param, ctx)
        return numbers


# A wide window, a narrow one, a blurred one and one that leaves the image.
EXAMPLES = ("0,0,3,0,0", "0,0,0,-1.2,0", "0.3,-0.2,3,-1.2,0", "0.9,0.7,0,-0.7,0")


@command.command("attention")
@click.option(
    "--window",
    "windows",
    type=WindowNumbers(),
    multiple=True,
    help="g~X,g~Y,log s2,log d~,log gamma; repeat for more rows.",
)
@click.option(
    "--patch",
    type=click.IntRange(1, 128),
    default=12,
    show_default=True,
    help="Side of the patch, in filters.",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A picture file.  [default: a cluttered digit]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**62),
    default=0,
    show_default=True,
    help="Of the example picture.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("results/figures/attention.png"),
    show_default=True,
)
@options.common
def plot_attention(
    windows: tuple, patch: int, image: Path | None, seed: int, out: Path, as_json: bool
) -> None:
    """The grid, the filters, the patch read and what a write puts back, for chosen windows."""
    import torch

    from drawbench import attention, figures
    from drawbench.cli import console

    picture = _picture(image) if image else _example(seed)
    numbers = torch.tensor(
        windows or [tuple(float(word) for word in example.split(",")) for example in EXAMPLES]
    )
    height, width = picture.shape[-2:]
    window = attention.window(numbers, height, width, patch)
    if out.suffix not in (".png", ".pdf"):
        raise click.UsageError(f"--out must end in .png or .pdf, got {out.name}")
    paths = figures.save(
        figures.attention_explained(picture, window, patch),
        out.parent,
        out.stem,
        formats=(out.suffix[1:],),
    )
    console.emit(
        {"figures": [str(path) for path in paths]}, "\n".join(str(path) for path in paths), as_json
    )


def _picture(path: Path):
    """A picture file as float32 (C, H, W) in [0, 1]."""
    import numpy as np
    import torch
    from PIL import Image

    from drawbench.data import photographs
    from drawbench.errors import Problem

    try:
        with Image.open(path, formats=photographs.FORMATS) as file:
            if file.width * file.height > 1 << 24:
                raise Problem(
                    f"{path} has {file.width}x{file.height} pixels; 16 million are enough to look at"
                )
            values = np.array(
                file.convert("L" if file.mode in ("1", "L", "I", "F", "I;16") else "RGB")
            )
    except Problem:
        raise
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise Problem(
            f"{path} is not a picture that can be read: {' '.join(str(error).split())}"
        ) from error
    return (
        torch.from_numpy(values if values.ndim == 3 else values[..., None]).permute(2, 0, 1).float()
        / 255
    )


def _example(seed: int):
    """A cluttered scene of embedded digits, float32 (1, 100, 100)."""
    import torch

    from drawbench.data import scenes, sources
    from drawbench.data.scenes import Scene
    from drawbench.evaluation.error_rate import as_input

    part = sources.load("digits", Path()).splits["test"]
    return as_input(scenes.fresh(part, Scene(), torch.tensor([seed]), 0, "example").images)[0]
