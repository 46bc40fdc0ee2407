"""Several processes on the command line: each runs the same command line, and the first alone
reads, writes and prints.
"""

import sys
from typing import Any

import click

from drawbench import config as configs
from drawbench import distributed

PROCESSES = click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    help="Processes on this machine that share the images.",
)


def start(processes: int | None, usual: int = 1) -> None:
    """Go on as one of so many processes. Returns in each of them, and not in the one that starts
    them, which ends as they do.

    Args:
        processes: how many, if it was said; under torchrun it is not to be said.
        usual: how many if it was not said.
    """
    if processes is not None and distributed.by_torchrun():
        raise click.UsageError(
            "torchrun says how many processes there are (--nproc-per-node); leave out --processes"
        )
    if distributed.size() == 1 and (processes or usual) > 1 and not distributed.by_torchrun():
        sys.exit(distributed.launch([sys.executable, *sys.orig_argv[1:]], processes or usual))


def configured(config: Any, given: dict[str, Any]) -> Any:
    """:func:`start` for a configuration with these settings ``given``; returns it with the number
    of processes that there are.
    """
    start(given.get("processes"), config.training.processes)
    return configs.replace(config, processes=distributed.size())
