"""What every experiment does the same way."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from drawbench import distributed
from drawbench.config import Training
from drawbench.errors import Problem
from drawbench.runs import Run
from drawbench.training import Reporter, StopFlag, Task, Trainer

Model = TypeVar("Model", bound=nn.Module)


def device_of(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here: each process of a machine has a GPU
    of its own.

    Raises:
        Problem: CUDA is asked for and not there, or there are fewer GPUs than processes.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise Problem(
            "--device cuda was asked for, but torch finds no CUDA device; use --device auto or cpu, and see: drawbench doctor"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if distributed.local_rank() >= torch.cuda.device_count():
        raise Problem(
            f"there are more processes than GPUs, of which this machine has {torch.cuda.device_count()}; "
            "take as many --processes, or --device cpu"
        )
    torch.cuda.set_device(distributed.local_rank())
    return torch.device("cuda", distributed.local_rank())


def products_of(training: Training, device: torch.device) -> torch.dtype:
    """The dtype of the matrix products that the precision of a training means; lets a GPU use TF32
    if that is it.

    Raises:
        Problem: the precision or the recording is a GPU's, and there is none.
    """
    for what, wanted in (
        ("--precision tf32", training.precision == "tf32"),
        ("--graph", training.graph),
    ):
        if wanted and device.type != "cuda":
            raise Problem(
                f"{what} is for a GPU, but this trains on the CPU; leave it out, or see: drawbench doctor"
            )
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if training.precision == "tf32" else "highest")
    return torch.bfloat16 if training.precision == "bfloat16" else torch.float32


@contextmanager
def exactly() -> Iterator[None]:
    """Inside, nothing is rounded to TF32: what is measured is measured in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def use_threads(training: Training) -> int:
    """Let torch use the CPU threads that are asked for in each process, or as many as it does
    anyway; how many it are.

    A run that had another number of processes asks for threads of those: it gets as many in all.
    """
    chosen = training.threads or torch.get_num_threads()
    if training.threads and training.processes != distributed.size():
        chosen = max(1, chosen * training.processes // distributed.size())
    torch.set_num_threads(chosen)
    return chosen


def check_same(config: Any) -> None:
    """Nothing, if all processes found the same data.

    Raises:
        Problem: one found other data than the first.
    """
    first = distributed.broadcast(config)
    if config.data != first.data:
        raise Problem(
            f"process {distributed.rank()} found {config.data}, but the first one {first.data}; put the same data on every machine"
        )


def train(task: Task, run: Run, reporter: Reporter, flag: StopFlag) -> Trainer:
    """Train, or go on training, to the end; see :meth:`drawbench.training.Trainer.fit`."""
    trainer = Trainer(task, run, reporter)
    trainer.restore()
    if run.config.training.start is not None:
        weights, _ = Run.open(Path(run.config.training.start)).load_best()
        trainer.start_from(weights)
    trainer.fit(flag)
    return trainer


def load_weights(build: Callable[[], Model], run: Run) -> Model:
    """A run's network with its best weights, ready to measure.

    Args: build: makes the network. First it makes one without memory, so that settings of any size
        take none unless the weights have it.

    Raises:
        Problem: the run has no weights yet, or they are damaged or do not fit.
    """
    tensors, _ = run.load_best()
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is copied
            build().load_state_dict(tensors)
        model = build()
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise Problem(
            f"the weights in {run.folder} do not fit the model of its config.json: {' '.join(str(error).split())}"
        ) from error
    return model.eval()
