"""``drawbench export``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench export results/runs/NAME results/published/NAME
  drawbench export RUN FOLDER --half        weights of half the size; measures the copy
  drawbench export RUN FOLDER --no-weights  numbers and figures: enough for tables and compare
"""
)
@options.RUN_ARGUMENT
@click.argument("folder", type=options.folder)
@click.option(
    "--half", is_flag=True, help="Round the weights to half precision, and measure the copy."
)
@click.option(
    "--weights/--no-weights", default=True, help="Copy the weights, or numbers and figures only."
)
@options.PLACE
@options.common
def command(
    run: Path, folder: Path, half: bool, weights: bool, as_json: bool, **place: Any
) -> None:
    """Copy a finished run to keep or share: numbers, figures and best weights.

    Training states are left out: a copy can be evaluated, plotted and drawn with, but not trained.
    With --half its result is that of the rounded weights.
    """
    if half and not weights:
        raise click.UsageError("--half needs the weights that --no-weights leaves out; use one")
    import shutil

    from drawbench import records, tasks
    from drawbench.cli import console, training

    opened = tasks.open_run(run)
    records.read(opened.folder, console.say)  # a shared run has a sound result
    copy = opened.copy_to(folder, half=half, weights=weights)
    if half:
        try:
            measurement = training.measure(copy, **place)
            measurement.outcomes.save(folder)
            copy.write_result(copy.result() | measurement.fields)
        except BaseException:
            shutil.rmtree(folder)
            raise
    result = copy.result()
    size = (folder / "best.safetensors").stat().st_size if weights else 0
    content = f"weights {size / 1e6:.1f} MB" if weights else "no weights"
    text = f"{folder}: {result['metric'].replace('_', ' ')} {result['value']:.2f}, {content}."
    console.emit({**result, "run": str(folder), "weights_bytes": size}, text, as_json)
