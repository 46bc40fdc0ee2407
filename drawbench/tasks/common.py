"""What the tasks share: devices, precision, threads."""

import contextlib
import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from drawbench import data, distributed, fast, streams, user_code
from drawbench.config import Training
from drawbench.data.dataset import Dataset
from drawbench.errors import Problem
from drawbench.evaluation.precision import allow_tf32
from drawbench.fast import native
from drawbench.reporters import Reporter


def device_of(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``mps``; each local process has its own
    CUDA device.

    Raises:
        Problem: a device is asked for and not there, or there are fewer GPUs than processes.
    """
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if name in there and not there[name]():
        raise Problem(
            f"--device {name} was asked for, but torch finds no {name.upper()} device; "
            "use --device auto or cpu, and see: drawbench doctor"
        )
    if name == "mps":
        if distributed.size() > 1:
            raise Problem("--device mps trains with one process; leave out --processes")
        return torch.device("mps")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if distributed.local_rank() >= torch.cuda.device_count():
        raise Problem(
            f"there are more processes than GPUs ({torch.cuda.device_count()}); "
            "use fewer --processes, or --device cpu"
        )
    torch.cuda.set_device(distributed.local_rank())
    return torch.device("cuda", distributed.local_rank())


def measurable(model: nn.Module) -> nn.Module:
    """Return a model as it can be measured: on ``mps``, a copy on the CPU."""
    device = next(model.parameters()).device
    exact = streams.exact_device(device)
    return model if exact == device else copy.deepcopy(model).to(exact)


def replays(training: Training, device: torch.device, model: nn.Module) -> bool:
    """Return whether updates are replayed as CUDA graphs: as asked, else on a GPU where the model
    is known to do the same at every update without waiting for the device, and keeps all steps.
    """
    if training.graph is not None:
        return training.graph
    keeps_all = getattr(training, "checkpoint_steps", None) is None
    return device.type == "cuda" and keeps_all and fast.can_be_recorded(model)


def matmul_dtype(training: Training, device: torch.device) -> torch.dtype:
    """Return the dtype of the matrix products, and allow TF32 on a GPU if that is the precision.

    A CPU that does not multiply bfloat16 multiplies float32 instead, faster and more exactly.

    Raises:
        Problem: the precision or the recording needs a GPU, and there is none.
    """
    tf32 = training.precision == "tf32"
    if device.type != "cuda" and (tf32 or training.graph):
        raise Problem(
            f"{'--precision tf32' if tf32 else '--graph'} needs a CUDA GPU, but this trains on "
            f"{device.type}; "
            "leave it out, or see: drawbench doctor"
        )
    if device.type == "cuda":
        allow_tf32(tf32)
    rounds = training.precision == "bfloat16" and fast.multiplies_bfloat16(device)
    return torch.bfloat16 if rounds else torch.float32


def blame(config: Any) -> contextlib.AbstractContextManager[None]:
    """Name the user's own model, if it is one, in what it raises."""
    name = config.model.model
    return user_code.blamed(name) if ":" in name else contextlib.nullcontext()


def use_threads(training: Training) -> int:
    """Set torch's CPU thread count and return it; keep freed memory for the next step.

    A run that was started with another number of processes keeps its total number of threads.
    """
    threads = training.threads or torch.get_num_threads()
    if training.threads and training.processes != distributed.size():
        threads = max(1, threads * training.processes // distributed.size())
    torch.set_num_threads(threads)
    native.keep_freed_memory()
    return threads


def load_data(
    config: Any, seed: int, reporter: Reporter, trusted: Collection[str], **roots: Any
) -> tuple[Dataset, dict[str, int]]:
    """Load the data set of a configuration from ``sources_root`` and ``datasets_root``.

    Returns:
        The data set, and what a model must know of it: ``channels``, ``height``, ``width`` and,
        for a classifier, ``classes``.

    Raises:
        Problem: it is not there, or has no labels for a classifier.
    """
    name = config.data.dataset
    dataset = data.load(
        config.data,
        seed=seed,
        factory=user_code.factory(name, trusted) if ":" in name else None,
        say=reporter.say,
        progress=lambda done, total: reporter.progress(done, total, {}),
        **roots,
    )
    facts = dict(zip(("channels", "height", "width"), dataset.size, strict=True))
    if config.task == "generate":
        return dataset, facts
    if dataset.classes is None:
        raise Problem(f"a classifier needs labels, but the data set {dataset.name} has none")
    return dataset, facts | {"classes": len(dataset.classes)}


def check_same(config: Any) -> None:
    """Check that all processes have the same data.

    Raises:
        Problem: one has other data than the first.
    """
    first = distributed.broadcast(config)
    if config.data != first.data:
        raise Problem(
            f"process {distributed.rank()} has {config.data}, but the first process has "
            f"{first.data}; put the same data on every machine"
        )
