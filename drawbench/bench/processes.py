"""Several processes of one thread, the other way to keep all cores busy."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from drawbench.bench.cases import Case, Contender, contenders
from drawbench.errors import Problem
from drawbench.fast import native


@contextmanager
def side_by_side(case: Case, work: str, count: int) -> Iterator[Callable[[Contender], None]]:
    """Start processes that each do a piece of work on a batch of their own, as runs with other
    seeds would, and give what makes all of them do it once.

    That takes one of :func:`drawbench.bench.contenders`, on the CPU.

    Args:
        count: processes.

    Raises:
        Problem: one was killed.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(count):
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, case, work), daemon=True)
        process.start()
        there.close()  # the process has its own; once it dies, reading here fails
        pipes.append(here)
        processes.append(process)

    def run(contender: Contender) -> None:
        try:
            for pipe in pipes:
                pipe.send(contender)
            for pipe in pipes:
                pipe.recv()
        except (EOFError, OSError) as error:
            raise Problem(
                "a process of --against processes was killed, perhaps for want of memory; use a "
                "smaller --batch, or leave it out"
            ) from error

    try:
        yield run
    finally:
        for pipe in pipes:
            pipe.close()  # which ends the process
        for process in processes:
            process.join()


def _serve(pipe: Any, case: Case, work: str) -> None:
    """Do the work once for every contender that is asked for, until the other side closes."""
    torch.set_num_threads(1)
    native.keep_freed_memory()
    runs = contenders(case, work)
    try:
        while True:
            runs[pipe.recv()]()
            pipe.send(True)
    except (EOFError, OSError):
        pass
