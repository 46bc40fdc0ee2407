"""``drawbench resume``."""

from pathlib import Path
from typing import Any

import click

from drawbench import config as configs
from drawbench.cli import options, sharing
from drawbench.config import DEVICES
from drawbench.errors import Problem


@click.command(
    epilog="""\b
Examples:
  drawbench resume results/runs/NAME
  drawbench resume RUN --processes 1
"""
)
@options.RUN_ARGUMENT
@sharing.PROCESSES
@options.log
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="Where to continue; on another device the result is the same to rounding.  "
    "[default: the run's]",
)
@options.QUIET
@options.PLACE
@options.common
def command(
    run: Path,
    processes: int | None,
    log: tuple[str, ...],
    device: str | None,
    quiet: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Continue a run exactly where it stopped.

    The result is the same to the bit as if it had never stopped, for the same versions and the same
    number of threads and processes and the same device (the run's own, unless you give another;
    then it is the same to rounding). A finished run is left as it is.
    """
    from drawbench import tasks
    from drawbench.cli import console, training
    from drawbench.runs import LAST

    opened = tasks.open_run(run)
    result = None
    if opened.finished:
        try:
            result = opened.result()
        except Problem as problem:
            if not (opened.folder / LAST).exists():
                raise
            console.say(f"{problem}; measuring the finished run again.")
    if result is not None:
        console.say(
            f"{run} is finished; there is nothing to resume. "
            f"Measure it again with: drawbench evaluate {run}"
        )
        text = console.table([training.model_row(result) | training.measured_row(result)])
        console.emit({**result, "run": str(run)}, text, as_json)
        return
    sharing.start(processes, opened.config.training.processes)
    screen = console.screen(quiet)
    here = opened.config if device is None else configs.replace(opened.config, device=device)
    task = training.create(here, screen=screen, **place)
    reporter = training.listeners(screen, run, log, task.config)
    training.finish(task, opened, reporter, as_json)
