"""The experiments of the paper, one file each: from settings to data, a trained model and what was
measured of it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from drawbench.errors import Problem
from drawbench.runs import Run
from drawbench.tasks import classify, generate

LOADERS = {"classify": classify.load_model, "generate": generate.load_model}


class LoadedRun(NamedTuple):
    """A run to work with in a notebook."""

    run: Run  #: its folder: ``run.result()``, ``run.metrics()``
    config: Any  #: :class:`drawbench.config.Classify` or :class:`drawbench.config.Generate`
    model: nn.Module  #: with the best weights, ready to measure


def load_run(folder: str | Path) -> LoadedRun:
    """A run from its folder, a classifier's or a generator's.

    Raises:
        Problem: there is no run, or its files are damaged.
    """
    run = Run.open(Path(folder))
    if run.config.task not in LOADERS:
        raise Problem(f"{folder} is a run of {run.config.task!r}, which has no model")
    return LoadedRun(run, run.config, LOADERS[run.config.task](run))
