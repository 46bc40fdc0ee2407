"""``drawbench export``."""

from pathlib import Path

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench export results/runs/generate-mnist-draw-64-seed0 results/published/draw-64
  drawbench export RUN FOLDER --half        weights of half the size; the copy is measured again
  drawbench export RUN FOLDER --no-weights  numbers and pictures only: enough for tables and compare
"""
)
@options.RUN_ARGUMENT
@click.argument("folder", type=options.folder)
@click.option(
    "--half", is_flag=True, help="Round the weights to half precision, and measure the copy again."
)
@click.option(
    "--weights/--no-weights",
    default=True,
    show_default=True,
    help="Copy the weights; without, numbers and pictures only.",
)
@options.DATASETS
@options.SOURCES
@options.common
def command(
    run: Path,
    folder: Path,
    half: bool,
    weights: bool,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Copy a finished run to keep or share: its numbers, pictures and best weights, without the
    states to go on from.

    With weights the copy can be evaluated, plotted and drawn with like the run itself. With --half
    its result is that of the rounded weights.
    """
    if half and not weights:
        raise click.UsageError(
            "--half is about weights, and --no-weights leaves them out; give one of the two"
        )
    import shutil

    from drawbench import records
    from drawbench.cli import console, running
    from drawbench.training import Interrupted, stop_flag

    opened = running.open_run(run)
    records.read(run, console.say)  # what is shared has a sound result
    kind, screen = running.KINDS[opened.config.task], console.Console()
    made = kind.experiment(opened.config, datasets, sources, screen) if half else None
    copy = opened.copy_to(folder, half=half, weights=weights)
    if made is not None:
        with stop_flag() as flag:
            try:
                kind.measure_again(made, copy, flag)
                screen.close()
            except Interrupted as stop:
                screen.close()
                shutil.rmtree(folder)
                console.say("Stopped; no copy was made.")
                raise SystemExit(128 + stop.number) from None
    result = copy.result()
    size = (folder / "best.safetensors").stat().st_size if weights else 0
    held = f"weights {size / 1e6:.1f} MB" if weights else "without weights"
    text = f"{folder}: {result['metric'].replace('_', ' ')} {result['value']:.2f}, {held}."
    console.emit({**result, "run": str(folder), "weights_bytes": size}, text, as_json)
