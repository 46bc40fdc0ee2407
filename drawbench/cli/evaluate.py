"""``drawbench evaluate``."""

from pathlib import Path

import click

from drawbench.cli import options, sharing


class Numbers(click.ParamType):
    """Whole numbers: ``8``, ``0,4,8`` or ``0..32..4`` (from, to, step)."""

    name = "numbers"

    def convert(self, value, param, ctx) -> list[int]:
        if isinstance(value, list):
            return value
        numbers: list[int] = []
        try:
            for part in value.split(","):
                first, *rest = (int(word) for word in part.split(".."))
                last, step = (*rest, 1)[:2] if rest else (first, 1)
                if len(rest) > 2 or last < first or step < 1 or (last - first) // step > 1000:
                    raise ValueError
                numbers += range(first, last + 1, step)
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 0,4,8 or 0..32..4", param, ctx)
        return sorted(set(numbers))


@click.command(
    epilog="""\b
Examples:
  drawbench evaluate results/runs/classify-draw-8-seed0
  drawbench evaluate RUN --clutter 0..32..4            error against clutter it was not trained with
  drawbench evaluate RUN --glimpses 1..12              error against looks at test time
  drawbench evaluate RUN --samples 100 --images 1000   a generator: the importance-weighted bound
"""
)
@options.RUN_ARGUMENT
@click.option("--clutter", type=Numbers(), help="Also test with these counts of clutter pieces.")
@click.option("--canvas", type=Numbers(), help="Also test on canvases of these sides, pixels.")
@click.option("--glimpses", type=Numbers(), help="Also test with these numbers of glimpses.")
@click.option("--samples", type=click.IntRange(1), help="A generator: also the importance-weighted bound with so many samples.")
@click.option("--images", type=click.IntRange(1), help="Test images of that bound, evenly spaced.  [default: all]")
@click.option("--bound-samples", type=click.IntRange(1), help="Samples for each image in the bound itself.  [default: the run's]")
@click.option(
    "--batch", type=click.IntRange(1), default=250, show_default=True, help="Images at a time in each process: a matter of memory."
)
@sharing.PROCESSES
@options.DATASETS
@options.SOURCES
@options.common
def command(
    run: Path,
    clutter: list[int] | None,
    canvas: list[int] | None,
    glimpses: list[int] | None,
    samples: int | None,
    images: int | None,
    bound_samples: int | None,
    batch: int,
    processes: int | None,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Measure a run again from its best weights, on the test file, with a 95 % interval.

    A classifier: the error, and by class; with --clutter, --canvas or --glimpses also outside its training conditions; the table and
    the curve go into the run folder. A generator: the bound, and with --samples the importance-weighted one.
    """
    from drawbench.cli import classifying, console, generating, running

    opened = running.open_run(run)
    screen = console.Console()
    of_classifiers = {"--clutter": clutter, "--canvas": canvas, "--glimpses": glimpses}
    of_generators = {"--samples": samples, "--images": images, "--bound-samples": bound_samples}
    for name in [name for name, value in (of_generators if opened.config.task == "classify" else of_classifiers).items() if value]:
        raise click.UsageError(f"{name} does not go with {run}, a run of {opened.config.task!r}")
    if opened.config.task == "generate":
        if images and not samples:
            raise click.UsageError("--images says how many images the importance-weighted bound is measured on; give --samples too")
        sharing.start(processes)
        generating.evaluate(opened, samples, bound_samples, images, batch, datasets, sources, screen, as_json)
        return
    for name, values in (("--clutter", clutter), ("--canvas", canvas), ("--glimpses", glimpses)):
        if values and min(values) < (0 if name == "--clutter" else 1):
            raise click.UsageError(f"{name} must be at least {0 if name == '--clutter' else 1}, got {min(values)}")
    sharing.start(processes)
    curves = {name: values for name, values in (("clutter", clutter), ("canvas", canvas), ("glimpses", glimpses)) if values}
    classifying.evaluate(opened, curves, batch, datasets, sources, screen, as_json)
