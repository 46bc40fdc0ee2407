"""Data sets of the user's own, from a factory that returns a `Dataset`."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from drawbench.data.dataset import Context, Dataset
from drawbench.errors import Problem, reason


def load(settings: Any, context: Context, factory: Callable[..., Any]) -> Dataset:
    """Call ``factory`` and check what it returns.

    Args:
        settings: ``dataset``, the factory's name, ``data_seed`` and, for generators, ``pixels``.
        factory: called with those of ``seed``, ``data_seed``, ``sources_root`` and
            ``datasets_root`` that it accepts.

    Raises:
        Problem: it raises, or returns something other than a `Dataset` that serves the task.
    """
    name, rule = settings.dataset, getattr(settings, "pixels", None)
    offered = {
        "seed": context.seed,
        "data_seed": settings.data_seed,
        "sources_root": context.sources_root,
        "datasets_root": context.datasets_root,
    }
    try:
        parameters = inspect.signature(factory).parameters
        takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        dataset = factory(
            **{key: value for key, value in offered.items() if takes_all or key in parameters}
        )
    except Problem:
        raise
    except (Exception, SystemExit) as error:
        raise Problem(f"{name} raised {type(error).__name__}: {reason(error)}") from error
    if not isinstance(dataset, Dataset):
        raise Problem(
            f"{name} returned {type(dataset).__name__}; it must return a "
            "drawbench.data.dataset.Dataset, such as Dataset.from_arrays(...)"
        )
    if rule is None and dataset.classes is None:
        raise Problem(f"{name} has no labels, which a classifier needs")
    return dataclasses.replace(dataset, pixels=rule and "intensity")
