"""Peak memory, each in a process of its own."""

import contextlib
import gc
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from drawbench.bench.cases import Case, Contender, contenders
from drawbench.errors import Problem


def in_process(function: Callable[..., int], *arguments: Any) -> int:
    """What a function of this package gives in a fresh process.

    Raises:
        Problem: the process died, as the system lets it where memory runs out.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return process.submit(function, *arguments).result()
    except BrokenProcessPool as error:
        raise Problem(
            "the process that measures memory was ended from outside, so there may be too little; use a smaller --batch"
        ) from error


def peak_memory(
    case: Case, work: str, contender: Contender, device: torch.device, threads: int
) -> int:
    """Bytes by which a piece of work, done three times, raises the memory of this process above its
    model and inputs.

    On a CPU it is the resident set, on a GPU what torch has allocated there. A peak never falls, so
    call it through :func:`in_process`.
    """
    torch.set_num_threads(threads)
    run = contenders(case, work, device)[contender]
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # Linux: the peak begins again at what is held now
    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_gpu else _resident_peak()
    for _ in range(3):
        run()
    return (torch.cuda.max_memory_allocated(device) if on_gpu else _resident_peak()) - before


def _resident_peak() -> int:
    """Bytes, the largest resident set that this process has had."""
    with contextlib.suppress(OSError):
        # Not getrusage on Linux: there a process begins with the peak of the one that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
