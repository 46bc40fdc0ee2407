"""Processes that share a piece of work."""

import contextlib
import multiprocessing
import os
from multiprocessing.connection import Connection

import torch

from drawbench import distributed
from drawbench.bench.cases import Case, Contender, changed, contenders
from drawbench.errors import Problem


class Team:
    """Processes of this machine that do a piece of work together, each its share of the batch, as
    ``--processes`` does in training.

    Close it after use.

    Args:
        case: with the whole batch.
        size: how many processes; they share the threads that torch has here, at least one each.

    Raises:
        Problem: there is not one image for each.
    """

    def __init__(self, case: Case, work: str, device: torch.device, size: int):
        if case.batch < size:
            raise Problem(
                f"a batch of {case.batch} cannot be shared by {size} processes; use a larger --batch"
            )
        self._stack = contextlib.ExitStack()
        context, threads = (
            multiprocessing.get_context("spawn"),
            max(1, torch.get_num_threads() // size),
        )
        self._store = distributed.meeting_place()
        self._ends = []
        for number in range(size):
            mine, theirs = context.Pipe()
            share = changed(case, batch=case.batch // size + (number < case.batch % size))
            arguments = (
                theirs,
                distributed.seat(self._store, number, size),
                share,
                work,
                device,
                threads,
            )
            process = context.Process(target=_member, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._stack.callback(process.join)
            self._ends.append(mine)
        self._stack.callback(self._tell, None)

    def run(self, contender: Contender) -> None:
        """Let all do the work once, and wait for the last.

        Raises:
            Problem: one of them has died.
        """
        self._tell(contender)
        try:
            for end in self._ends:
                end.recv()
        except (EOFError, OSError) as error:
            raise Problem(
                "a process of the team was ended, so there may be too little memory; take fewer processes"
            ) from error

    def _tell(self, contender: Contender | None) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):  # one that has died is missed when its answer is
                end.send(contender)

    def close(self) -> None:
        """Send the processes home."""
        self._stack.close()


def _member(
    end: Connection, seat: dict[str, str], case: Case, work: str, device: torch.device, threads: int
) -> None:
    """A process of a :class:`Team`: works whenever it is told to, until told to stop."""
    os.environ.update(seat)
    torch.set_num_threads(threads)
    distributed.join()
    runs = contenders(case, work, device)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (contender := end.recv()) is not None:
            runs[contender]()
            end.send(True)
    distributed.leave()
