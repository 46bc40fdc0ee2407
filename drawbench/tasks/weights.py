"""Building a model from settings, and giving it the weights of a run."""

import functools
import warnings
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from drawbench import models, streams
from drawbench.data.dataset import Dataset
from drawbench.errors import Problem, one_line
from drawbench.runs import Run
from drawbench.tasks import user_model

Model = TypeVar("Model", bound=nn.Module)
MAX_SIDE = 4096  # pixels that a checkpoint may claim


def build(config: Any, facts: dict[str, int], trusted: Collection[str] = ()) -> nn.Module:
    """Build the model that a configuration names, with the initial weights of its seed.

    Args:
        facts: ``channels``, ``height``, ``width`` and, for a classifier, ``classes``.
        trusted: the user's own modules that may be imported.

    Raises:
        Problem: it cannot be made for images of this size, or its module is not trusted.
    """
    name = config.model.model
    with streams.seeded(config.training.seed, "weights"):
        if ":" in name:
            return user_model.build(name, config.task, config.model.arguments, facts, trusted)
        factories = models.CLASSIFIERS if config.task == "classify" else models.GENERATORS
        try:
            return models.make(factories[name], config.model.arguments, facts)
        except ValueError as error:
            raise Problem(str(error)) from error


def facts_of(run: Run, about: dict[str, Any]) -> dict[str, int]:
    """Return the size of the images, and the number of classes, that a run's weights are for.

    Args:
        about: the facts in the run's checkpoint.

    Raises:
        Problem: the checkpoint does not say, or says something impossible.
    """
    data = run.config.data
    size = about.get("size")
    if size is None and hasattr(data, "canvas"):  # earlier checkpoints did not say it
        size = [1, data.canvas, data.canvas]
    classes = about.get("classes", 10)
    if not (
        isinstance(size, list)
        and len(size) == 3
        and all(type(number) is int and 1 <= number <= MAX_SIDE for number in [*size, classes])
    ):
        raise Problem(
            f"the weights in {run.folder} do not say which image size they are for; "
            "train the run again with --force"
        )
    facts = dict(zip(("channels", "height", "width"), size, strict=True))
    return facts | ({"classes": classes} if run.config.task == "classify" else {})


def class_names(about: dict[str, Any], classes: int) -> tuple[str, ...]:
    """Return the names of a classifier's classes; numbers where its checkpoint does not say them.

    Args:
        about: the facts in a run's checkpoint.
        classes: how many there are.
    """
    names = about.get("names")
    if isinstance(names, list) and len(names) == classes and {type(n) for n in names} == {str}:
        return tuple(map(one_line, names))
    return tuple(map(str, range(classes)))


def load(build: Callable[[], Model], run: Run, dataset: Dataset | None = None) -> Model:
    """Build a model and load the best weights of a run into it, ready to measure.

    Args:
        dataset: what it will be measured on.

    Raises:
        Problem: the run has no weights yet, or they are damaged or do not fit the model or the
            images.
    """
    tensors, about = run.load_best()
    if dataset is not None and about.get("size", list(dataset.size)) != list(dataset.size):
        ours, theirs = ("x".join(map(str, size)) for size in (about["size"], dataset.size))
        raise Problem(
            f"the model in {run.folder} is for {ours} images, but {dataset.name} has {theirs} "
            "(channels x height x width)"
        )
    model = build()
    return _fitted(lambda: model, tensors, run).eval()


def _fitted(build: Callable[[], Model], tensors: dict[str, Tensor], run: Run) -> Model:
    try:
        model = build()
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise Problem(
            f"the weights in {run.folder} do not fit the model of its config.json: "
            f"{' '.join(str(error).split())}"
        ) from error
    return model


def load_model(run: Run, trusted: Collection[str] = ()) -> nn.Module:
    """Return the model of a run with its best weights; its data need not be there.

    A first copy is built without memory, so that a stranger's settings of any size cost none
    unless the weights have that size.
    """
    tensors, about = run.load_best()
    make = functools.partial(build, run.config, facts_of(run, about), trusted)
    if ":" not in run.config.model.model:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is copied
            _fitted(make, tensors, run)
    return load(make, run)
