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
@options.IMAGES
@options.TRUST
@options.DATASETS
@options.SOURCES
@options.common
def command(
    first: Path,
    second: Path,
    seed: int,
    images: Path | None,
    trust: tuple[str, ...],
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Compare two models on the same test images: the difference, its 95% interval, and whether it
    could be chance.

    Classifiers by the exact McNemar test, generators by the paired bootstrap of their bounds. What
    a model made of each test image is read from its run folder; where it is not there, it is
    measured.
    """
    from drawbench.cli import console
    from drawbench.evaluation import paired

    one, two = (
        paired.load(run)
        if (run / paired.FILE).is_file()
        else _measured(run, images, trust, datasets, sources)
        for run in (first, second)
    )
    found = paired.compare(one, two, seed)
    console.emit(
        {"runs": [str(first), str(second)], **asdict(found)},
        in_words(first.absolute().name, second.absolute().name, found),
        as_json,
    )


def _measured(
    folder: Path,
    images: Path | None,
    trust: tuple[str, ...],
    datasets: Path,
    sources: Path | None,
):
    """Measure what a run makes of each test image; keep it where the run is one of our own."""
    from drawbench import tasks
    from drawbench.cli import console, training

    run = tasks.open_run(folder)
    console.say(f"{folder} has no losses of single test images; measuring them.")
    _, measurement = training.measure(run, images, trust, datasets, sources)
    if training.writable(run):
        measurement.outcomes.save(folder)
    return measurement.outcomes


def in_words(first: str, second: str, comparison) -> str:
    """Return what a person reads."""
    from drawbench.evaluation import paired

    errors = comparison.metric == paired.ERROR
    unit, amount = ("%", "percentage points") if errors else (" nats", "nats")
    if first == second:
        first, second = f"{first} (first)", f"{second} (second)"
    one, two = comparison.values
    difference = comparison.difference
    verdict = "equally good"
    if difference:
        verdict = f"{abs(difference):.2f} {amount} {'better' if difference < 0 else 'worse'}"
    alone = "wrong on" if errors else "worse on"
    chance = "unlikely to be chance" if comparison.p < 0.05 else "this may well be chance"
    return "\n".join(
        [
            f"{first}: {one:.2f}{unit}   {second}: {two:.2f}{unit}   "
            f"(the same {comparison.n:,} test images)",
            f"{first} is {verdict}: difference {difference:+.2f} {amount}, "
            f"95% interval {comparison.low:+.2f} to {comparison.high:+.2f}.",
            f"Only {first} is {alone} {comparison.only_first:,} images, "
            f"only {second} on {comparison.only_second:,}.",
            f"{paired.format_p(comparison.p)} ({comparison.test}): {chance}.",
        ]
    )
