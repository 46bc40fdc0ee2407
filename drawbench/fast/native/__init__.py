"""What a recurrence does between its matrix products, in C (``kernels.c``), and its batch shared
among the cores.

The products themselves are torch's. :func:`kernels` returns the compiled functions, or None where
there are none, and :func:`why_no_kernels` says why; the models' own forward then does everything,
slower and with the same result to rounding.
"""

from drawbench.fast.native.build import kernels, why_no_kernels
from drawbench.fast.native.memory import keep_freed_memory

__all__ = ["keep_freed_memory", "kernels", "why_no_kernels"]
