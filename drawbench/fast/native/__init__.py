"""What a recurrence does between its matrix products, in C (``kernels.c``), and its batch shared
out among the cores.

The products themselves are torch's. :func:`kernels` gives the compiled functions, or None where
there is no C compiler: the plain models then do everything, slower and with the same result to
rounding.
"""

from drawbench.fast.native.build import Kernels, addresses, kernels, padded_lines, room
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
]
