"""DRAW's kernels on a GPU behind the functions of ``kernels.c``, with the same arguments and
results, so one recurrence (:mod:`drawbench.fast.draw`) runs on both.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from drawbench.fast.native import triton_kernels as kernels
from drawbench.fast.native.build import Map, padded

BLOCK = 256  # numbers of one program where an image does not matter


def _blocks(count: int) -> tuple[int]:
    return (-(-count // BLOCK),)


class GpuKernels:
    """The functions of ``kernels.c`` that DRAW needs, on a GPU; arguments as there, a :class:`Map`
    in place of its address.

    Args:
        dtype: of the reals: float32 or float64.
        device: where all the arrays are.
    """

    shared = False  #: a GPU shares a batch out by itself

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.real = {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]
        self.dtype, self.device = dtype, device
        self.maps: dict[Any, torch.Tensor] = {}

    def _types(self, rounded: int) -> dict[str, Any]:
        return {"REAL": self.real, "TYPE": tl.bfloat16 if rounded else self.real}

    def lstm_forward(self, batch, units, rounded, sums, constant, gates, cell, next, squashed,
                     hidden, hidden_stride, row, row_stride):  # fmt: skip
        kernels.lstm_forward[_blocks(batch * units)](
            sums, constant or sums, gates, cell, next, squashed, hidden, hidden_stride, row or sums,
            row_stride, batch, units, HAS_CONSTANT=constant != 0, HAS_ROW=row != 0, SIZE=BLOCK,
            **self._types(rounded),
        )  # fmt: skip

    def lstm_backward(self, batch, units, rounded, gates, cell, squashed, full, one, one_stride,
                      two, two_stride, three, three_stride, into_cell, into_sums):  # fmt: skip
        kernels.lstm_backward[_blocks(batch * units)](
            gates, cell, squashed, full or gates, one or gates, one_stride, two or gates,
            two_stride, three or gates, three_stride, into_cell, into_sums, batch, units,
            HAS_FULL=full != 0, SOURCES=sum(each != 0 for each in (one, two, three)), SIZE=BLOCK,
            **self._types(rounded),
        )  # fmt: skip

    def latent_forward(self, batch, latent, rounded, sums, noise, mu, log_sigma, stride, spread,
                       row, row_stride):  # fmt: skip
        kernels.latent_forward[_blocks(batch * latent)](
            sums, noise, mu, log_sigma, stride, spread, row, row_stride, batch, latent, SIZE=BLOCK,
            **self._types(rounded),
        )  # fmt: skip

    def latent_backward(self, batch, latent, rounded, into_z, z_stride, into_mu, into_log_sigma,
                        stride, spread, into_sums):  # fmt: skip
        kernels.latent_backward[_blocks(batch * latent)](
            into_z, z_stride, into_mu, into_log_sigma, stride, spread, into_sums, batch, latent,
            SIZE=BLOCK, **self._types(rounded),
        )  # fmt: skip

    def bernoulli_forward(self, size, canvas, means):
        kernels.bernoulli_forward[_blocks(size)](canvas, means, size, REAL=self.real, SIZE=BLOCK)

    def bernoulli_backward(self, size, means, into_means, into_canvas):
        kernels.bernoulli_backward[_blocks(size)](
            means, into_means, into_canvas, size, REAL=self.real, SIZE=BLOCK
        )

    def _windows(self, map: Map) -> tuple[int, dict[str, Any], tuple[int, ...]]:
        """Return the address of a map's ranges, its constants, and the sizes of its images."""
        fields = map.structure
        ranges = (*fields.middle, *fields.radius, *fields.limit)
        if ranges not in self.maps:
            self.maps[ranges] = torch.tensor(ranges, dtype=self.dtype, device=self.device)
        height, width, n = fields.height, fields.width, fields.patch
        p, q = padded(width, self.dtype), padded(height, self.dtype)
        power = triton.next_power_of_2
        sides = {"TALL": power(n), "HIGH": power(q), "WIDE": power(p)}
        sides = {name: max(side, kernels.TILE.value) for name, side in sides.items()}
        constants = {"N": n, "BOUNDED": bool(fields.bounded), "REAL": self.real, **sides}
        return self.maps[ranges].data_ptr(), constants, (height, width, p, q)

    def read_forward(self, map, batch, channels, images, bytes, means, numbers, numbers_stride, fx,
                     fy, across, patches, row, row_stride, rounded):  # fmt: skip
        ranges, constants, sizes = self._windows(map)
        kernels.read_forward[(batch,)](
            ranges, images, means, numbers, numbers_stride, fx, fy, across, patches, row,
            row_stride, channels, *sizes, **constants | self._types(rounded),
        )  # fmt: skip

    def read_backward(self, map, batch, channels, images, bytes, means, numbers, numbers_stride,
                      fx, fy, across, patches, into_row, row_stride, rounded, into_means,
                      into_numbers, into_stride):  # fmt: skip
        ranges, constants, sizes = self._windows(map)
        kernels.read_backward[(batch,)](
            ranges, map.structure.clip, images, means, numbers, numbers_stride, fx, fy, across,
            patches, into_row, row_stride, into_means, into_numbers, into_stride, channels, *sizes,
            **constants | self._types(rounded),
        )  # fmt: skip

    def write_forward(self, map, batch, channels, patches, numbers, stride, fx, fy, across, canvas):
        ranges, constants, sizes = self._windows(map)
        kernels.write_forward[(batch,)](
            ranges, patches, numbers, stride, fx, fy, across, canvas, channels, *sizes, **constants
        )

    def write_backward(self, map, batch, channels, patches, numbers, stride, fx, fy, across,
                       into_canvas, into_patches, into_numbers, into_stride):  # fmt: skip
        ranges, constants, sizes = self._windows(map)
        kernels.write_backward[(batch,)](
            ranges, map.structure.clip, patches, numbers, stride, fx, fy, across, into_canvas,
            into_patches, into_numbers, into_stride, channels, *sizes, **constants,
        )  # fmt: skip

    def error_forward(self, batch, lines, width, images, means, row, row_stride, rounded):
        kernels.error_forward[(*_blocks(lines * width), batch)](
            images, means, row, row_stride, lines, width, padded(width, self.dtype), SIZE=BLOCK,
            **self._types(rounded),
        )  # fmt: skip

    def error_backward(self, batch, lines, width, into_row, row_stride, rounded, into_means):
        p = padded(width, self.dtype)
        kernels.error_backward[(*_blocks(lines * p), batch)](
            into_row, row_stride, into_means, lines, width, p, SIZE=BLOCK, **self._types(rounded)
        )

    def canvas_add(self, batch, lines, width, drawn, rounded, canvas):
        size = batch * lines * width
        kernels.canvas_add[_blocks(size)](
            drawn,
            canvas,
            size,
            width,
            padded(width, self.dtype),
            SIZE=BLOCK,
            **self._types(rounded),
        )

    def canvas_pack(self, batch, lines, width, canvas, rounded, to):
        size = batch * lines * width
        kernels.canvas_pack[_blocks(size)](
            canvas, to, size, width, padded(width, self.dtype), SIZE=BLOCK, **self._types(rounded)
        )
