"""Several processes that train or measure one model together: on one machine by ``--processes N``,
on several by ``torchrun``.

Each process has the whole model and computes a contiguous share of the images, of an update or of a
set that is measured. Gradients are summed and measurements gathered, so what comes out is, to
rounding, what one process gives. The first process (rank 0) alone reads, writes and prints. In a
process by itself every function here gives back what it was given.

The only file that imports torch.distributed, and only where there are several processes. Small
things travel between CPUs (gloo), gradients between GPUs where the model is on them (NCCL).
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

if TYPE_CHECKING:  # torch takes seconds to import, and a wrong option is to be named at once
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
LONGEST = timedelta(
    hours=2
)  # that the others are waited for: while the first downloads data, or saves after a signal


@dataclass(frozen=True)
class Group:
    """The processes that work together, as seen by one of them.

    Attributes: rank: the number of this process, from 0. size: how many there are, on all machines.
        local_rank: the number of this process on its machine; it takes the GPU of this number.
        store: the key-value store of the group, which outlives the connections between its
        processes. parent: the process that started this one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = None
    parent: int = 0


ALONE = Group()
_group = ALONE


def rank() -> int:
    """The number of this process, 0 for the first."""
    return _group.rank


def size() -> int:
    """How many processes work together."""
    return _group.size


def local_rank() -> int:
    """The number of this process on its machine."""
    return _group.local_rank


def by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


# ---------------------------------------------------------------------------------------- the group


def join() -> None:
    """Join the group that this process was started for by :func:`launch` or torchrun; nothing if it
    was not.

    From then on only the first process can be heard.

    Raises:
        Problem: the others do not come.
    """
    global _group
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1 or _group is not ALONE:
        return
    import torch
    import torch.distributed as dist

    parent, number = os.getppid(), int(os.environ["RANK"])
    if number:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open as long as the process lives
    backend = (
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    )
    with _connected(number, count):
        store, *_ = next(dist.rendezvous("env://", timeout=LONGEST))
        store = dist.PrefixStore(
            os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store
        )  # another attempt is another group
        _group = Group(number, count, int(os.environ.get("LOCAL_RANK", number)), store, parent)
        dist.init_process_group(
            backend, store=store, rank=number, world_size=count, timeout=LONGEST
        )


def leave() -> None:
    """Close the connections, so that processes that still wait for this one learn that it has gone."""
    global _group
    if _group is not ALONE:
        import torch.distributed as dist

        _group = ALONE
        if dist.is_initialized():
            dist.destroy_process_group()


def take_the_word(status: int) -> None:
    """Let one process alone tell what went wrong: an error in one ends all, and only the first one
    is the cause.

    Returns in the first that fails, which can be heard from then on. Ends the others silently, with
    the exit status of that one.

    Args:
        status: the exit status that this process is about to end with.
    """
    if size() == 1:
        return
    first, its_status = _first_failure(_group.store, rank(), status)
    if first != rank():
        sys.exit(its_status)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _first_failure(store: Any, number: int, status: int) -> tuple[int, int]:
    """Rank and exit status of the process that failed first; those given if there was none before,
    or it took the store with it.
    """
    try:
        words = store.compare_set("failed", "", f"{number} {status}").decode().split()
    except RuntimeError:
        return number, status
    return int(words[0]), int(words[1])


@contextlib.contextmanager
def _connected(number: int, count: int) -> Iterator[None]:
    """Within, the others can be reached.

    Raises:
        Problem: they cannot, or not any more.
    """
    try:
        yield
    except RuntimeError as error:
        raise Problem(
            f"process {number} of {count} has lost the others: one of them has ended or was killed (memory?). "
            "A training goes on from its last checkpoint with: drawbench resume RUN"
        ) from error


# ------------------------------------------------------------------------ what they tell each other


def _sum_(tensor: "Tensor") -> "Tensor":
    """The sum over the processes, in place."""
    import torch.distributed as dist

    with _connected(rank(), size()):
        dist.all_reduce(tensor)
    return tensor


def broadcast(value: R) -> R:
    """What the first process gives, in all of them; anything that pickle takes."""
    if size() == 1:
        return value
    import torch
    import torch.distributed as dist

    box = [value]
    with _connected(rank(), size()):
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def by_first(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the first process alone calls the function, while the others wait; all get what it
    returns.

    For everything that reads or writes a run folder: there is one writer, and on several machines
    only its own needs the folder. Within the function the process is by itself.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        global _group
        group = _group
        if group.rank:
            return broadcast(None)  # type: ignore[return-value] # which the first one's value replaces
        _group = ALONE
        try:
            value = function(*args, **kwargs)
        finally:
            _group = group
        return broadcast(value)

    return call


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """The first process goes through the block by itself, then the first of every other machine,
    then the rest.

    So the first makes or downloads what is missing, and the others find it, whether or not their
    machines share a disk.
    """
    turn = 0 if rank() == 0 else 1 if local_rank() == 0 else 2
    for _ in range(turn):
        _wait_for_all()
    yield
    for _ in range(turn, 2):
        _wait_for_all()


def _wait_for_all() -> None:
    signal_to_stop(None)


def signal_to_stop(number: int | None) -> int | None:
    """The signal that any of the processes was sent, the same in all of them, so that all stop at
    the same step.

    Where what started a process has gone, SIGTERM: nobody is left to stop it.

    Args:
        number: the signal that this process was sent, if any.
    """
    if size() == 1:
        return number
    import torch
    import torch.distributed as dist

    if number is None and os.getppid() != _group.parent:
        number = signal.SIGTERM
    largest = torch.tensor(number or 0)
    with _connected(rank(), size()):
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest) or None


# --------------------------------------------------------------------------------- sharing the work


def _share(count: int, number: int, processes: int) -> tuple[int, int]:
    """First and count of the share of ``0 .. count - 1`` that a process has; where they differ, the
    first have one more.
    """
    each, more = divmod(count, processes)
    return number * each + min(number, more), each + (number < more)


def share(count: int) -> tuple[int, int]:
    """The contiguous part of the images ``0 .. count - 1`` of an update that is this process's: its
    first one, and how many.

    Raises:
        Problem: there is not one image for each process.
    """
    if count < size():
        raise Problem(
            f"an update of {count} image{'s' if count > 1 else ''} cannot be shared by {size()} processes, which need one each: "
            "take fewer --processes, or a larger --batch"
        )
    return _share(count, rank(), size())


def mean_(gradients: "list[Tensor]", numbers: "Tensor", part: float) -> "Tensor":
    """Turn means over each process's images into means over all, in one all-reduce: ``sum_r n_r / n
    g_r``.

    Args:
        gradients: of the mean loss over this process's images, any shapes; overwritten.
        numbers: (N,), other means over this process's images.
        part: ``n_r / n``, the share that this process has of all images.

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


def gather(measure: "Callable[[Any], Tensor]", rows: Any) -> "Tensor":
    """``measure(rows)``, of which each process computes a share, in all of them.

    Args: measure: gives a row of a CPU tensor for each row that it is given, whatever other rows
        are beside it. rows: at least one; whatever can be sliced.
    """
    if size() == 1:
        return measure(rows)
    first, count = _share(len(rows), rank(), size())
    # A network cannot look at no image: where there is none for a process, it looks at the first
    # one for nothing.
    mine = measure(rows[first : first + count] if count else rows[:1])[:count]
    whole = mine.new_zeros(len(rows), *mine.shape[1:])
    whole[first : first + count] = mine
    return _sum_(whole)


# ---------------------------------------------------------------------------------------- launching


def meeting_place() -> Any:
    """The store where processes of this machine find each other; it must outlive them."""
    from torch.distributed import TCPStore

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def seat(store: Any, number: int, processes: int) -> dict[str, str]:
    """What process ``number`` of a group needs in its environment to :func:`join` it at a
    :func:`meeting_place`.
    """
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(processes),
    }
    return {
        **shared,
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": str(number),
        "LOCAL_RANK": str(number),
    }


def launch(command: list[str], processes: int) -> int:
    """Run a command in several processes on this machine, as torchrun does, and wait for their end.

    SIGINT and SIGTERM are passed on to them. An error in one ends all.

    Args: command: the program and its words; each process finds in its environment what
        :func:`join` needs. processes: how many. They share torch's CPU threads, at least one each.

    Returns:
        The exit status: of the first process that failed, 0 if none did.

    Raises:
        Problem: a process was killed, and no other has told so.
    """
    import torch
    from torch.distributed import PrefixStore

    store = meeting_place()
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes))}
    environments = {
        number: {**seat(store, number, processes), **threads} for number in range(processes)
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
    """Run a command in each environment: the exit statuses that are not 0, and the signal that came
    meanwhile.

    Each process leads a session of its own, so Ctrl-C reaches this one alone, which passes it on
    exactly once.
    """
    import logging

    from torch.distributed.elastic.multiprocessing import (
        DefaultLogsSpecs,
        PContext,
        SignalException,
        start_processes,
    )

    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(
        logging.CRITICAL
    )  # the processes speak for themselves
    # Not SIGHUP: nohup is to hold, and without it the processes stop when they find this one gone.
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGINT,SIGTERM")
    program, *words = command
    started: PContext | None = None
    stopped: int | None = None
    while True:
        try:
            if started is None:
                arguments = {number: tuple(words) for number in environments}
                started = start_processes(
                    "drawbench", program, arguments, environments, DefaultLogsSpecs(os.devnull)
                )
            if stopped:
                started.close(signal.Signals(stopped), timeout=int(LONGEST.total_seconds()))
            if (ended := started.wait(period=0.1)) is not None:
                return {
                    number: failure.exitcode for number, failure in ended.failures.items()
                }, stopped
        except SignalException as stop:
            if started is None:
                return {0: -stop.sigval}, stop.sigval
            stopped = stop.sigval  # a second one is passed on too, and ends them at once


def _status(store: Any, codes: dict[int, int], stopped: int | None, processes: int) -> int:
    """The exit status of a launch from those of the processes that failed, negative for one that a
    signal ended.
    """
    if not codes:
        return 0
    number, code = min(codes.items(), key=lambda item: item[1])
    first, status = _first_failure(store, processes, 128 - code if code < 0 else code)
    if first == processes and code < 0 and not stopped:
        raise Problem(
            f"process {number} of {processes} was ended by {signal.Signals(-code).name} (memory?). "
            "A training goes on from its last checkpoint with: drawbench resume RUN"
        )
    return status
