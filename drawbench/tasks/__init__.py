"""Tasks: what every command drives. One file each; :mod:`drawbench.tasks.task` has the protocol."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from drawbench import config as configs
from drawbench import distributed, pretrained, user_code
from drawbench.errors import Problem
from drawbench.reporters import Reporter
from drawbench.runs import Run
from drawbench.tasks import common, generate, user_model, weights
from drawbench.tasks.classify import Classify
from drawbench.tasks.generate import Generate
from drawbench.tasks.task import Task

TASKS: dict[str, type] = {kind.name: kind for kind in (Classify, Generate)}


def create(
    config: Any,
    *,
    sources_root: Path,
    datasets_root: Path,
    reporter: Reporter,
    trusted: Collection[str] = (),
) -> Task:
    """Load the data that a configuration names and build its model with its initial weights.

    Args:
        config: with ``auto`` where the data are to decide; the task's own has what it became.
        sources_root, datasets_root: folders of original files and of generated data sets.
        trusted: the user's own modules that may be imported, see :mod:`drawbench.user_code`.

    Raises:
        Problem: the data are not there or do not fit, or the model cannot be made for them.
    """
    model_name = config.model.model
    if ":" in model_name:
        user_code.factory(model_name, trusted)  # before time is spent on data
    device = common.device_of(config.training.device)
    threads = common.use_threads(config.training)
    with distributed.in_turn():
        roots = {"sources_root": sources_root, "datasets_root": datasets_root}
        seed = config.training.seed
        dataset, facts = common.load_data(config, seed, reporter, trusted, **roots)
    resolved: dict[str, Any] = {"threads": threads, "processes": distributed.size()}
    for name in ("source", "pixels"):
        if hasattr(config.data, name) and getattr(dataset, name) is not None:
            resolved[name] = getattr(dataset, name)
    config = configs.replace(config, **resolved)
    common.check_same(config)
    model = weights.build(config, facts, trusted)
    if config.task == "generate":
        generate.initialize(model, dataset)
    model = model.to(device)
    if ":" in model_name:
        user_model.check_model(config, model, dataset)
    elif config.task == "generate":
        generate.check_condition(model_name, model, dataset)
    return TASKS[config.task](config, dataset, model, device)


class LoadedRun(NamedTuple):
    """A run to work with in a notebook."""

    run: Run  #: its folder: ``run.result()``, ``run.metrics()``
    config: Any  #: :class:`drawbench.config.Classify` or :class:`drawbench.config.Generate`
    model: nn.Module  #: with the best weights, ready to measure


def load_run(folder: str | Path, trusted: Collection[str] = ()) -> LoadedRun:
    """Load a run from its folder; its data need not be there.

    Args:
        folder: a run folder, or the name of a model that comes with the package.
        trusted: the user's own modules that the run may import, by name.

    Raises:
        Problem: there is no run, its files are damaged, or it needs a module that is not trusted.
    """
    run = open_run(Path(folder))
    return LoadedRun(run, run.config, weights.load_model(run, trusted))


def load_pretrained(name: str) -> LoadedRun:
    """Load a model that comes with the package, whatever lies in the working directory.

    Raises:
        Problem: there is none of this name.
    """
    if name not in (known := pretrained.models()):
        raise Problem(
            f"there is no pretrained model {name!r}: choose one of {', '.join(known)}, or open a "
            "run folder with load_run"
        )
    return load_run(pretrained.HOME / name)


def open_run(folder: Path) -> Run:
    """Open a run that trains a model.

    Raises:
        Problem: there is none, or its configuration trains nothing or is not complete.
    """
    run = Run.open(folder)
    if run.config.task not in TASKS:
        raise Problem(f"{folder} is a run of {run.config.task!r}, which trains nothing")
    if run.config.training.steps is None:
        raise Problem(
            f"{folder / 'config.json'} is not complete: it has no number of steps, which "
            f"drawbench {run.config.task} writes there"
        )
    return run


__all__ = ["TASKS", "LoadedRun", "Task", "create", "load_pretrained", "load_run", "open_run"]
