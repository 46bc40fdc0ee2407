"""Run folders on the command line, whatever is in them."""

import itertools
from pathlib import Path
from types import ModuleType

from drawbench import distributed
from drawbench.cli import classifying, generating
from drawbench.errors import Problem
from drawbench.runs import Run

# Each has experiment(), finish() and redraw().
KINDS: dict[str, ModuleType] = {"classify": classifying, "generate": generating}


@distributed.by_first
def folder_for(root: Path, name: str | None, stem: str) -> Path:
    """The folder of a new run: ``root/name``, or ``root/stem`` with a number where it is taken."""
    if name is not None:
        if not name or Path(name).name != name or name.startswith("."):
            raise Problem(f"a run's name is one plain word, got {name!r}; its place is --runs DIR")
        return root / name
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(root / name for name in names if not (root / name).exists())


def open_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        Problem: there is none, or its configuration trains nothing or is not complete.
    """
    run = Run.open(folder)
    if run.config.task not in KINDS:
        raise Problem(f"{folder} is a run of {run.config.task!r}, which trains nothing")
    if run.config.training.steps is None:
        task = run.config.task
        raise Problem(
            f"{folder / 'config.json'} is not complete: it names no number of steps, which drawbench {task} writes there"
        )
    return run
