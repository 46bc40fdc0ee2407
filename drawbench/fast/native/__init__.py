"""What a recurrence does between its matrix products, in C (``kernels.c``) on a CPU and in Triton
(``triton_kernels.py``) on a GPU, and its batch shared among the cores.

The products themselves are torch's. :func:`kernels` returns the compiled functions, or None where
there are none, and :func:`why_no_kernels` says why; the models' own forward then does everything,
slower and with the same result to rounding. :func:`gpu_kernels` is the same for a GPU.
"""

import functools
import os
from typing import Any

import torch

from drawbench.fast.native.build import compiler, kernels, why_no_kernels
from drawbench.fast.native.memory import keep_freed_memory

__all__ = ["gpu_kernels", "keep_freed_memory", "kernels", "why_no_kernels"]


@functools.cache
def gpu_kernels(dtype: torch.dtype, device: torch.device) -> Any:
    """Return the kernels of DRAW on a CUDA device, or None: the dtype is another than float32,
    there is no Triton (torch brings it on Linux), or no C compiler, which it needs for its
    launchers.
    """
    if dtype != torch.float32 or os.environ.get("DRAWBENCH_NATIVE") == "0" or compiler() is None:
        return None
    try:
        from drawbench.fast.native.gpu import GpuKernels
    except ImportError:
        return None
    return GpuKernels(dtype, device)
