"""How the looks of a glimpse classifier read, by hand: through Gaussian windows or affine maps.

A reading has room for the raw numbers of T looks that the state chooses, (T, B, K), which the
recurrence sets, and for their gradients, which it gets back.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, T looks.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from drawbench import attention
from drawbench.fast.native.build import Kernels, addresses, padded_lines
from drawbench.fast.native.parts import Side
from drawbench.models.common import as_images
from drawbench.models.glimpses import AFFINE_RADIUS, IDENTITY


class _Reading:
    """What all have in common.

    Args:
        images: (B, C, H, W), uint8 or reals; a share of all.
        numbers: K, raw numbers of a look.
        steps: T.
        keep: whether a backward pass will follow.
        rounded: whether what the LSTM takes is bfloat16.
    """

    def __init__(
        self, native: Kernels, images: Tensor, numbers: int, steps: int, keep: bool, rounded, dtype
    ):
        self.native, self.keep, self.rounded = native, keep, int(rounded)
        # Bytes stay bytes: a batch of them fits into a core's own cache; four times as much not.
        self.bytes = int(images.dtype == torch.uint8)
        self.images = images.contiguous() if self.bytes else padded_lines(images)
        self.shape = tuple(images.shape)
        self.numbers = torch.empty(steps, len(images), numbers, dtype=dtype)
        self.into_numbers = torch.empty_like(self.numbers)
        self.chosen, self.into_chosen = self.numbers, self.into_numbers
        self.told: Tensor | None = None  # (T, B, ...), what the LSTM takes beside what is read


class GaussianReading(_Reading):
    """Reading through Gaussian windows.

    Args:
        glimpse: with ``patch`` and ``window_map``.
        clip: see :func:`drawbench.attention.clip_gradient`, or None.
        whole: images over which the loss is a mean, not only those of the share.
    """

    def __init__(self, glimpse: Any, *, native, images, steps, keep, rounded, dtype, clip, whole):
        count = len(attention.PARAMETERS)
        super().__init__(native, images, count, steps, keep, rounded, dtype)
        batch, channels, *size = self.shape
        self.side = Side(
            size, channels, glimpse.patch, steps, batch, keep=keep, whole=whole, dtype=dtype,
            device=images.device, bounded=glimpse.window_map == "bounded", clip=clip,
        )  # fmt: skip
        self.at_numbers, self.at_into = (
            addresses(tensor, steps) for tensor in (self.numbers, self.into_numbers)
        )
        self.fixed = batch, channels, self.images.data_ptr(), self.bytes, 0

    def patches(self, t: int) -> int:
        """Return the address of the patches (B, C N N) of look t."""
        return self.side.at(t)[-1]

    def forward(self, t: int, row: int, row_stride: int) -> None:
        """Read look t to the address ``row``."""
        self.native.read_forward(
            self.side.map, *self.fixed, self.at_numbers[t], self.numbers.shape[-1],
            *self.side.at(t), row, row_stride, self.rounded,
        )  # fmt: skip

    def backward(self, t: int, into_row: int, row_stride: int) -> None:
        """Set the gradient of the numbers of look t, from that of what was read."""
        count = self.numbers.shape[-1]
        self.native.read_backward(
            self.side.map, *self.fixed, self.at_numbers[t], count, *self.side.at(t), into_row,
            row_stride, self.rounded, 0, self.at_into[t], count,
        )  # fmt: skip


class RandomReading(GaussianReading):
    """Reading through Gaussian windows at random places, of which the LSTM is told. Only the last
    three numbers are chosen.
    """

    def __init__(self, glimpse: Any, *, images, steps, dtype, clip, whole, **rest):
        settings = {"images": images, "steps": steps, "dtype": dtype, "whole": whole}
        super().__init__(_Bounded(glimpse.patch), clip=None, **settings, **rest)
        self.limit = None if clip is None else clip / whole
        place = glimpse.draw(as_images(images), steps).to(dtype)
        radius = place.new_tensor(attention.SQUASH_RADIUS[:2])
        self.told = place.transpose(0, 1)
        self.numbers[..., :2] = radius * torch.atanh(self.told / radius)  # what squashing undoes
        self.chosen, self.into_chosen = self.numbers[..., 2:], self.into_numbers[..., 2:]

    def backward(self, t: int, into_row: int, row_stride: int) -> None:
        super().backward(t, into_row, row_stride)
        if self.limit is not None:
            self.into_chosen[t] = attention.clip_rows(self.into_chosen[t], self.limit)


class _Bounded(NamedTuple):
    """The windows of a random glimpse."""

    patch: int
    window_map: str = "bounded"


class AffineReading(_Reading):
    """Reading through affine maps. The kernel keeps the derivative of every number read by the six
    of its map, so the way back is a sum of products. Arguments as of :class:`GaussianReading`.
    """

    def __init__(self, glimpse: Any, *, native, images, steps, keep, rounded, dtype, clip, whole):
        count = len(IDENTITY)
        super().__init__(native, images, count, steps, keep, rounded, dtype)
        batch, channels, *_ = self.shape
        self.sampling = glimpse.patch, glimpse.supersample
        self.limit = None if clip is None else clip / whole
        self.middle = self.numbers.new_tensor(IDENTITY)
        bounded = glimpse.window_map == "bounded"
        self.radius = self.numbers.new_tensor(AFFINE_RADIUS) if bounded else None
        places = steps if keep else 1
        self.moved = torch.empty_like(self.numbers)  # by how far each map is from the middle
        size = channels * glimpse.patch**2
        slopes = self.numbers.new_empty(places, batch, count, size) if keep else None
        self.slopes, self.size = slopes, (batch, size)
        self.at_slopes = [0] * steps if slopes is None else addresses(slopes, steps)

    def forward(self, t: int, row: int, row_stride: int) -> None:
        """Read look t to the address ``row``."""
        numbers, moved = self.numbers[t], self.moved[t]
        if self.radius is None:
            moved.copy_(numbers)
        else:
            torch.mul(torch.tanh(numbers / self.radius), self.radius, out=moved)
        theta = self.middle + moved
        self.native.affine_forward(
            *self.shape, self.images.data_ptr(), self.bytes, theta.data_ptr(), *self.sampling,
            self.at_slopes[t], row, row_stride, self.rounded,
        )  # fmt: skip

    def backward(self, t: int, into_row: int, row_stride: int) -> None:
        """Set the gradient of the numbers of look t, from that of what was read."""
        into = self.into_numbers[t]
        self.native.affine_backward(
            *self.size, self.at_slopes[t], into_row, row_stride, self.rounded, into.data_ptr()
        )
        if self.radius is not None:
            into.mul_(1 - (self.moved[t] / self.radius).square())
        if self.limit is not None:
            into.copy_(attention.clip_rows(into, self.limit))
