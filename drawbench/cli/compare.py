"""``drawbench compare``."""

from dataclasses import asdict
from pathlib import Path

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench compare results/published/draw-8-distorted results/published/draw-8
  drawbench compare RUN RUN --json
"""
)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap."
)
@options.DATASETS
@options.SOURCES
@options.common
def command(
    first: Path, second: Path, seed: int, datasets: Path, sources: Path | None, as_json: bool
) -> None:
    """Compare two models on the same test images: the difference, its 95 % interval, and whether it
    could be chance.

    Classifiers by the exact McNemar test, generators by the paired bootstrap of their bounds. What
    a model made of each test image is read from its run folder; where it is not there, it is
    measured and kept.
    """
    from drawbench.cli import console
    from drawbench.evaluation import paired

    one, two = (
        paired.load(run) if (run / paired.FILE).is_file() else _measured(run, datasets, sources)
        for run in (first, second)
    )
    found = paired.compare(one, two, seed)
    console.emit(
        {"runs": [str(first), str(second)], **asdict(found)},
        in_words(first.absolute().name, second.absolute().name, found),
        as_json,
    )


def _measured(folder: Path, datasets: Path, sources: Path | None):
    """What a run made of each test image, measured now."""
    from drawbench.cli import console, running

    run = running.open_run(folder)
    screen = console.Console()
    screen.say(f"{folder} does not say what its model made of each test image; measuring it.")
    return running.KINDS[run.config.task].outcomes(run, datasets, sources, screen)


def in_words(first: str, second: str, found) -> str:
    """What a person reads."""
    from drawbench.evaluation import paired

    errors = found.metric == paired.ERROR
    unit, amount = (" %", "percentage points") if errors else (" nats", "nats")
    if first == second:
        first, second = f"{first} (first)", f"{second} (second)"
    better = "better" if found.difference < 0 else "worse"
    told = f"{abs(found.difference):.2f} {amount} {better}" if found.difference else "just as good"
    alone = "wrong on" if errors else "worse on"
    sure = (
        "so small a p is hardly chance"
        if found.p < 0.05
        else "such a difference may well be chance"
    )
    return "\n".join(
        [
            f"{first}: {found.values[0]:.2f}{unit}   {second}: {found.values[1]:.2f}{unit}   (the same {found.n:,} test images)",
            f"{first} is {told}: difference {found.difference:+.2f} {amount}, 95 % interval {found.low:+.2f} to {found.high:+.2f}.",
            f"Only {first} is {alone} {found.only_first:,} images, only {second} on {found.only_second:,}.",
            f"p = {found.p:.2g} ({found.test}): {sure}.",
        ]
    )
