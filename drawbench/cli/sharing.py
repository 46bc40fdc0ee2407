"""What training commands share: several processes, of which the first alone prints, and several
seeds.
"""

import sys
from typing import Any

import click

from drawbench import config as configs
from drawbench import distributed
from drawbench.cli import experiment

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


def train(
    kind: type,
    recipe: str | None,
    given: dict[str, Any],
    *,
    trust: tuple[str, ...],
    seeds: list[int] | None,
    jobs: int,
    **place: Any,
) -> None:
    """Train the run that a command line describes; with ``seeds``, the runs of a row.

    Args:
        kind: of the configuration.
        given: the settings on the command line.
        jobs: runs of a row at a time.
    """
    if seeds is None and jobs != 1:
        raise click.UsageError("--jobs is for several runs; give --seeds too")
    if seeds is not None:
        from drawbench.cli import batch

        batch.train_seeds(kind, recipe, given, seeds, jobs=jobs, trust=trust, **place)
        return
    config = experiment.with_stored_set(experiment.configure(kind, recipe, given), given)
    config = configured(config, given)
    from drawbench.cli import training

    training.start(config, trust=experiment.trusted(given, trust), **place)
