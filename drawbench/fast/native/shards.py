"""A batch shared among the cores: each takes some of the images through the whole recurrence.

A recurrence is a long chain of small products. Working on each of them with all cores would
synchronize the cores every few microseconds; with a share of the images each, they synchronize
once, at the end.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
MIN_SHARE = 16  # images; with fewer, products are too small to be worth a core


def shares(batch: int, workers: int | None = None) -> list[slice]:
    """Divide a batch into as many nearly equal shares as torch may use threads (or as ``workers``
    says), but none too small.
    """
    parts = max(1, min(workers or torch.get_num_threads(), batch // MIN_SHARE))
    marks = [batch * k // parts for k in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(marks)]


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="drawbench")


def in_parallel(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run jobs at the same time, each in a thread and on a core of its own, without recording
    gradients, in the caller's inference mode; return their results in order.
    """
    if len(jobs) == 1:
        return [jobs[0]()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for this thread and, at their first work, those of the pool
    try:
        mode = torch.inference_mode(torch.is_inference_mode_enabled())
        pool = _pool(len(jobs) - 1)
        futures = [pool.submit(mode(torch.no_grad()(job))) for job in jobs[1:]]
        first = jobs[0]()
        return [first, *(future.result() for future in futures)]
    finally:
        torch.set_num_threads(threads)
