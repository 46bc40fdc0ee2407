"""What a recurrence does between its matrix products, in C (``kernels.c``), and its batch shared
among the cores.

The products themselves are torch's. :func:`kernels` returns the compiled functions, or None where
there are none, and :func:`why_no_kernels` says why; the models' own forward then does everything,
slower and with the same result to rounding.
"""

from drawbench.fast.native.build import (
    Kernels,
    addresses,
    kernels,
    padded_lines,
    room,
    why_no_kernels,
)
from drawbench.fast.native.parts import Lstm, Side, weight_gradient
from drawbench.fast.native.shards import in_parallel, shares

__all__ = [
    "Kernels",
    "Lstm",
    "Side",
    "addresses",
    "in_parallel",
    "kernels",
    "padded_lines",
    "room",
    "shares",
    "weight_gradient",
    "why_no_kernels",
]
