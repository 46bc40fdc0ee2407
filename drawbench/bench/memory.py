"""Peak memory, measured in a fresh process."""

import contextlib
import gc
import multiprocessing
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
    """Call a function of this package in a fresh process and return its result.

    Raises:
        Problem: the process was killed, as happens where memory runs out.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return process.submit(function, *arguments).result()
    except BrokenProcessPool as error:
        raise Problem(
            "the process that measures memory was killed, perhaps for want of memory; "
            "use a smaller --batch or --no-memory"
        ) from error


def peak_memory(
    case: Case, work: str, contender: Contender, device: torch.device, threads: int
) -> int:
    """Do a piece of work three times and return by how many bytes it raised the peak memory.

    The baseline includes the model and its inputs. On a CPU this is the resident set, on a GPU what
    torch has allocated. A peak never falls, so call this through :func:`in_process`.
    """
    torch.set_num_threads(threads)
    run = contenders(case, work, device)[contender]
    gc.collect()
    with contextlib.suppress(OSError):  # Linux only: reset the peak to what is held now
        Path("/proc/self/clear_refs").write_text("5")
    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_gpu else _resident_peak()
    for _ in range(3):
        run()
    return (torch.cuda.max_memory_allocated(device) if on_gpu else _resident_peak()) - before


def _resident_peak() -> int:
    """Return the largest resident set of this process so far, in bytes.

    Raises:
        Problem: this system does not tell.
    """
    with contextlib.suppress(OSError):
        # On Linux, getrusage starts at the peak of the parent process.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        raise Problem("this system does not tell the peak memory; use --no-memory") from None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
