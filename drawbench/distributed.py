"""Several processes that train or measure one model together: by ``--processes N``, or torchrun.

Each process has the whole model and computes a contiguous share of the images, of an update or of a
data set. Gradients are summed and measurements gathered, so the result is, to rounding, that of one
process. The first process (rank 0) alone reads, writes and prints. In a process on its own every
function here returns what it was given.

Only this file imports torch.distributed, and only where there are several processes. Objects travel
between CPUs (gloo), gradients between GPUs where the model is on them (NCCL).
"""

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from drawbench.errors import Problem

if TYPE_CHECKING:  # torch takes seconds to import, and a wrong option should be reported at once
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
JOIN_TIMEOUT = timedelta(minutes=5)  # for all processes to start
TIMEOUT = timedelta(hours=2)  # for the others: the first may download data, or save after a signal


@dataclass(frozen=True)
class Group:
    """The processes that work together, as one of them sees them.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are, on all machines.
        local_rank: the number of this process on its machine, and of the GPU that it uses.
        store: the group's key-value store, which outlives the connections between processes.
        parent: the process that started this one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = None
    parent: int = 0


ALONE = Group()
_group = ALONE


def rank() -> int:
    """Return the number of this process, 0 for the first."""
    return _group.rank


def size() -> int:
    """Return how many processes work together."""
    return _group.size


def local_rank() -> int:
    """Return the number of this process on its machine."""
    return _group.local_rank


def by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


# ---------------------------------------------------------------------------------------- the group


def _incomplete(what: str) -> Problem:
    return Problem(
        f"WORLD_SIZE={os.environ['WORLD_SIZE']!r} makes this one of several processes, but {what}; "
        "start all of them with --processes N or torchrun, or unset WORLD_SIZE"
    )


def _variable(name: str, low: int, high: int) -> int:
    """Return an integer that a launcher set in the environment; raise `Problem` if it is none."""
    text = os.environ.get(name, "")
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise _incomplete(f"{name} is {text!r} and not a number from {low} to {high}")
    return int(text)


def join(*, shared: bool = True) -> None:
    """Join the group for which :func:`launch` or torchrun started this process, if any did.

    From then on only the first process prints.

    Args:
        shared: whether the command shares its work. One that does not stays on its own, whatever
            variables a launcher left in the environment.

    Raises:
        Problem: the variables are incomplete, or the others do not come.
    """
    global _group
    if not shared or "WORLD_SIZE" not in os.environ or _group is not ALONE:
        return
    count = _variable("WORLD_SIZE", 1, 1 << 20)
    if count == 1:
        return
    number = _variable("RANK", 0, count - 1)
    local = _variable("LOCAL_RANK", 0, count - 1) if "LOCAL_RANK" in os.environ else number
    _variable("MASTER_PORT", 1, 65535)
    if not os.environ.get("MASTER_ADDR"):
        raise _incomplete("MASTER_ADDR is not set")
    # Before torch is imported: a failure is reported in a sentence, not in frames of C++.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    import torch
    import torch.distributed as dist

    parent = os.getppid()
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
    try:
        store, *_ = next(dist.rendezvous("env://", timeout=JOIN_TIMEOUT))
    except RuntimeError as error:
        raise Problem(
            f"process {number} of {count} (RANK and WORLD_SIZE in the environment) did not reach "
            f"the others at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}; start all of "
            "them together, or unset WORLD_SIZE"
        ) from error
    if number:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until the end
    store.set_timeout(TIMEOUT)
    # Each attempt of torchrun is a group of its own.
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    _group = Group(number, count, local, store, parent)
    with _connected():
        dist.init_process_group(
            backend, store=store, rank=number, world_size=count, timeout=TIMEOUT
        )


def leave() -> None:
    """Close the connections, so that processes waiting for this one learn that it has left."""
    global _group
    if _group is not ALONE:
        import torch.distributed as dist

        _group = ALONE
        if dist.is_initialized():
            dist.destroy_process_group()


def report_failure(status: int) -> None:
    """Let the first process that fails report its error; an error in one ends all.

    Returns in the first that fails, which prints from then on, whatever its rank. Ends the others
    silently, with the exit status of the first.

    Args:
        status: the exit status that this process is about to end with.
    """
    if size() == 1:
        return
    first, first_status = _first_failure(_group.store, rank(), status)
    if first != rank():
        sys.exit(first_status)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _first_failure(store: Any, number: int, status: int) -> tuple[int, int]:
    """Return rank and exit status of the process that failed first; those given if none did."""
    own = f"{number} {status}".encode()
    with contextlib.suppress(RuntimeError):  # the store may have ended with its process
        own = store.compare_set("failed", "", own.decode())
    first, first_status = map(int, own.split())
    return first, first_status


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Raise `Problem` if the others cannot be reached inside."""
    try:
        yield
    except RuntimeError as error:
        raise Problem(
            f"process {rank()} of {size()} has lost the others: one of them has ended or was "
            "killed (out of memory?). Resume a training with: drawbench resume RUN"
        ) from error


# ------------------------------------------------------------------------------------ communication


def _sum_(tensor: "Tensor") -> "Tensor":
    """Sum over the processes, in place."""
    import torch.distributed as dist

    with _connected():
        dist.all_reduce(tensor)
    return tensor


def broadcast(value: R) -> R:
    """Return the first process's value in all of them; anything that can be pickled."""
    if size() == 1:
        return value
    import torch
    import torch.distributed as dist

    box = [value]
    with _connected():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def by_first(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the first process alone calls the function, and all return its value.

    For everything that reads or writes a run folder: there is one writer, and on several machines
    only its own needs the folder. Inside the function the process is on its own.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        global _group
        group = _group
        if group.rank:
            return broadcast(None)  # type: ignore[return-value] # the first process's value
        _group = ALONE
        try:
            value = function(*args, **kwargs)
        finally:
            _group = group
        return broadcast(value)

    return call


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """Let the first process run the block alone, then the first of each other machine, then all.

    So the first makes or downloads what is missing, and the others find it, whether or not their
    machines share a disk.
    """
    turn = 0 if rank() == 0 else 1 if local_rank() == 0 else 2
    for _ in range(turn):
        signal_to_stop(None)  # waits for all
    yield
    for _ in range(turn, 2):
        signal_to_stop(None)


def signal_to_stop(number: int | None) -> int | None:
    """Return the signal that any of the processes received, so that all stop at the same step.

    SIGTERM where the process that started this one has died: nobody is left to stop it.

    Args:
        number: the signal that this process received, if any.
    """
    if size() == 1:
        return number
    import torch
    import torch.distributed as dist

    if number is None and os.getppid() != _group.parent:
        number = signal.SIGTERM
    highest = torch.tensor(number or 0)
    with _connected():
        dist.all_reduce(highest, dist.ReduceOp.MAX)
    return int(highest) or None


# --------------------------------------------------------------------------------- sharing the work


def _share(count: int, number: int, processes: int) -> tuple[int, int]:
    """Return first and count of a process's share of ``0 .. count - 1``; the first have more."""
    each, more = divmod(count, processes)
    return number * each + min(number, more), each + (number < more)


def share(count: int) -> tuple[int, int]:
    """Return this process's contiguous share of an update's images: the first, and how many.

    Raises:
        Problem: there are fewer images than processes.
    """
    if count < size():
        raise Problem(
            f"an update of {count} image{'s' if count > 1 else ''} cannot be shared by {size()} "
            "processes, which need one each: use fewer --processes, or a larger --batch"
        )
    return _share(count, rank(), size())


def mean_(gradients: "list[Tensor]", numbers: "Tensor", part: float) -> "Tensor":
    """Turn means over each process's images into means over all: ``sum_r n_r / n g_r``.

    Args:
        gradients: of the mean loss over this process's images, any shapes; overwritten.
        numbers: (N,), other means over this process's images.
        part: ``n_r / n``, this process's share of all images.

    Returns:
        (N,), the numbers' means over all images, the same in every process.
    """
    if size() == 1:
        return numbers
    import torch

    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), numbers]).mul_(part)
    *parts, means = _sum_(flat).split([*(gradient.numel() for gradient in gradients), len(numbers)])
    for gradient, mean in zip(gradients, parts, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return means


def take_first_(tensors: "list[Tensor]") -> None:
    """Overwrite tensors with those of the first process.

    For what is no weight and yet changes in training, as running statistics do: what is saved of
    the first process is then the state of all.
    """
    if size() == 1:
        return
    import torch.distributed as dist

    with _connected():
        for tensor in tensors:
            value = tensor.contiguous()
            dist.broadcast(value, src=0)
            tensor.copy_(value)


def gather(measure: "Callable[[Any], Tensor]", rows: Any) -> "Tensor":
    """Return ``measure(rows)`` in all processes, each of which computes a share.

    Args:
        measure: returns a row of a CPU tensor for each row, whatever the rows beside it.
        rows: at least one; anything that can be sliced.
    """
    if size() == 1:
        return measure(rows)
    first, count = _share(len(rows), rank(), size())
    # A network cannot take zero images: a process without a share measures one and drops it.
    share = measure(rows[first : first + count] if count else rows[:1])[:count]
    whole = share.new_zeros(len(rows), *share.shape[1:])
    whole[first : first + count] = share
    return _sum_(whole)


# ---------------------------------------------------------------------------------------- launching


def launch(command: list[str], processes: int) -> int:
    """Run a command in several processes on this machine, as torchrun does, and wait for their end.

    SIGINT and SIGTERM are passed on to them. An error in one ends all.

    Args:
        command: the program and its arguments; each process can :func:`join` the group.
        processes: how many. They share torch's CPU threads, at least one each.

    Returns:
        The exit status: of the first process that failed, 0 if none did.

    Raises:
        Problem: a process was killed, and no other has reported it.
    """
    import torch
    from torch.distributed import PrefixStore, TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(processes),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes)),
    }
    environments = {
        number: {**shared, "RANK": str(number), "LOCAL_RANK": str(number)}
        for number in range(processes)
    }
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        codes, stopped = _run(command, environments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _status(PrefixStore("0", store), codes, stopped, processes)


def _run(
    command: list[str], environments: dict[int, dict[str, str]]
) -> tuple[dict[int, int], int | None]:
    """Run a command in each environment.

    Each process leads a session of its own, so Ctrl-C reaches this one alone, which passes it on
    exactly once.

    Returns:
        The exit statuses that are not 0, by process, and the signal that came meanwhile.
    """
    import logging

    from torch.distributed.elastic.multiprocessing import (
        DefaultLogsSpecs,
        PContext,
        SignalException,
        start_processes,
    )

    # The processes report their errors themselves.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    # Not SIGHUP: nohup must hold, and without it the processes stop when they miss this one.
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGINT,SIGTERM")
    arguments = {number: tuple(command[1:]) for number in environments}
    logs = DefaultLogsSpecs(os.devnull)
    running: PContext | None = None
    stopped: int | None = None
    while True:
        try:
            if running is None:
                running = start_processes("drawbench", command[0], arguments, environments, logs)
            if stopped:
                running.close(signal.Signals(stopped), timeout=int(TIMEOUT.total_seconds()))
            if (end := running.wait(period=0.1)) is not None:
                return {number: fault.exitcode for number, fault in end.failures.items()}, stopped
        except SignalException as stop:
            if running is None:
                return {0: -stop.sigval}, stop.sigval
            stopped = stop.sigval  # a second one is passed on too, and ends them at once


def _status(store: Any, codes: dict[int, int], stopped: int | None, processes: int) -> int:
    """Return the exit status of a launch from those of the processes that failed.

    A status is negative for a process that a signal ended.
    """
    if not codes:
        return 0
    number, code = min(codes.items(), key=lambda item: item[1])
    first, status = _first_failure(store, processes, 128 - code if code < 0 else code)
    if first == processes and code < 0 and not stopped:
        raise Problem(
            f"process {number} of {processes} was ended by {signal.Signals(-code).name} "
            "(out of memory?). Resume a training with: drawbench resume RUN"
        )
    return status
