"""``drawbench compare``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench compare results/published/draw-8-distorted results/published/draw-8
  drawbench compare RUN RUN --json
"""
)
@click.argument("first", type=options.run)
@click.argument("second", type=options.run)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the bootstrap.")
@options.PLACE
@options.common
def command(first: Path, second: Path, seed: int, as_json: bool, **place: Any) -> None:
    """Compare two models on the same test images: the difference, its 95% interval, and whether it
    could be chance.

    Classifiers by the exact McNemar test, generators by the paired bootstrap of their bounds. What
    a model made of each test image is read from its run folder; where it is not there, it is
    measured.
    """
    from drawbench.cli import console
    from drawbench.evaluation import paired

    comparison = paired.compare(_outcomes(first, place), _outcomes(second, place), seed)
    text = in_words(first.absolute().name, second.absolute().name, comparison)
    console.emit({"runs": [str(first), str(second)], **asdict(comparison)}, text, as_json)


def _outcomes(folder: Path, place: dict[str, Any]):
    """Return what a run makes of each test image; measured now, it is kept in a run of our own."""
    from drawbench import pretrained
    from drawbench.evaluation import paired

    folder = pretrained.find(folder)
    if (folder / paired.FILE).is_file():
        return paired.load(folder)
    from drawbench import tasks
    from drawbench.cli import console, training

    run = tasks.open_run(folder)
    console.say(f"{folder} has no losses of single test images; measuring them.")
    outcomes = training.measure(run, **place).outcomes
    if training.writable(run):
        outcomes.save(folder)
    return outcomes


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
