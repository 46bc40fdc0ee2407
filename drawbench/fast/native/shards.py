"""A batch shared out among the cores: each takes some of the images through the whole recurrence.

A recurrence is a long chain of small products. To let all cores work on each one of them costs a
meeting of the cores every few microseconds; a share of the images each costs one meeting at the
end.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
FEWEST = 16  # images in a share: with fewer, products are too small to be worth it


def shares(batch: int, workers: int | None = None) -> list[slice]:
    """The batch in as many nearly equal parts as torch may use threads (or as ``workers`` says), if
    they are not too small.
    """
    parts = max(1, min(workers or torch.get_num_threads(), batch // FEWEST))
    marks = [batch * k // parts for k in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(marks)]


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="drawbench")


def in_parallel(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """The results of jobs that run at the same time, each in a thread of its own on one core, in
    their order; no gradient is recorded.
    """
    if len(jobs) == 1:
        return [jobs[0]()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for this thread and, at their first work, those of the pool
    try:
        futures = [_pool(len(jobs) - 1).submit(torch.no_grad()(job)) for job in jobs[1:]]
        first = jobs[0]()
        return [first, *(future.result() for future in futures)]
    finally:
        torch.set_num_threads(threads)
