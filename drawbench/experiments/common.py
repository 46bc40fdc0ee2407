"""What every experiment does the same way."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from drawbench.errors import Problem
from drawbench.runs import Run
from drawbench.training import Reporter, StopFlag, Task, Trainer

Model = TypeVar("Model", bound=nn.Module)


def device_of(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        Problem: CUDA is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise Problem("--device cuda was asked for, but torch finds no CUDA device; use --device auto or cpu, and see: drawbench doctor")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def use_threads(threads: int | None) -> int:
    """Let torch use so many CPU threads, or as many as it does anyway; how many it are."""
    chosen = threads or torch.get_num_threads()
    torch.set_num_threads(chosen)
    return chosen


def train(task: Task, run: Run, reporter: Reporter, flag: StopFlag) -> Trainer:
    """Train, or go on training, to the end; see :meth:`drawbench.training.Trainer.fit`."""
    trainer = Trainer(task, run, reporter)
    trainer.restore()
    if run.config.training.start is not None:
        weights, _ = Run.open(Path(run.config.training.start)).load_best()
        trainer.start_from(weights)
    trainer.fit(flag)
    return trainer


def load_weights(model: Model, run: Run) -> Model:
    """A run's network with its best weights, ready to measure.

    Raises:
        Problem: the run has no weights yet, or they are damaged or do not fit.
    """
    tensors, _ = run.load_best()
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise Problem(f"the weights in {run.folder} do not fit the model of its config.json: {' '.join(str(error).split())}") from error
    return model.eval()
