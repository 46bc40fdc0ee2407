"""Several processes on the command line: all run the same one, and the first alone prints."""

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


def start(processes: int | None, default: int = 1) -> None:
    """Continue as several processes: return in each of them; the one that starts them ends.

    Args:
        processes: how many the command line asks for; torchrun decides by itself.
        default: how many if it does not ask.
    """
    if processes is not None and distributed.by_torchrun():
        raise click.UsageError(
            "torchrun sets the number of processes (--nproc-per-node); leave out --processes"
        )
    if distributed.size() == 1 and (processes or default) > 1 and not distributed.by_torchrun():
        sys.exit(distributed.launch([sys.executable, *sys.orig_argv[1:]], processes or default))


def configured(config: Any, given: dict[str, Any]) -> Any:
    """Call :func:`start` for a configuration; return it with the number of processes there are.

    Args:
        given: the settings on the command line.
    """
    start(given.get("processes"), config.training.processes)
    return configs.replace(config, processes=distributed.size())
