"""How the looks of a glimpse classifier read, by hand: through Gaussian windows, affine maps, or
hard crops.

A reading has room for the raw numbers of T looks that the state chooses, (T, B, K), which the
recurrence sets, and for their gradients, which it gets back.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, T looks, S scales.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from drawbench import attention, spatial
from drawbench.fast.native.build import Kernels, addresses, padded_lines
from drawbench.fast.native.parts import Side, repeated
from drawbench.models.common import as_images
from drawbench.models.glimpses import AFFINE_RADIUS, IDENTITY


class Share(NamedTuple):
    """A share of the images, and how it is read."""

    native: Kernels
    images: Tensor  #: (B, C, H, W), uint8 or reals
    noise: Tensor | None  #: (B, T, ...), for glimpses drawn at random
    steps: int  #: T
    whole: int  #: images over which the loss is a mean, not only those of the share
    keep: bool  #: whether a backward pass will follow
    clip: float | None  #: see :func:`drawbench.attention.clip_gradient`
    dtype: torch.dtype  #: of the model
    matmul_dtype: torch.dtype  #: of products
    parameters: Mapping[str, Tensor]  #: of the recurrence, by name

    @property
    def rounded(self) -> int:
        return int(self.matmul_dtype == torch.bfloat16)

    @property
    def limit(self) -> float | None:
        """The largest gradient norm of one image's window."""
        return None if self.clip is None else self.clip / self.whole


class Reading:
    """What all have in common.

    Args:
        share: of the images.
        numbers: K, raw numbers of a look.
    """

    sends_back: ClassVar[bool] = True  #: whether a gradient flows to the numbers

    def __init__(self, share: Share, numbers: int):
        self.share, self.native = share, share.native
        # Bytes stay bytes: a batch of them fits into a core's own cache; four times as much not.
        self.bytes = int(share.images.dtype == torch.uint8)
        self.images = share.images.contiguous() if self.bytes else padded_lines(share.images)
        self.shape = tuple(share.images.shape)
        size = share.steps, len(share.images), numbers
        self.numbers = torch.empty(*size, dtype=share.dtype)
        self.into_numbers = torch.zeros_like(self.numbers)
        self.chosen, self.into_chosen = self.numbers, self.into_numbers
        self.told: Tensor | None = None  # (T, B, ...), what the LSTM takes beside what is read

    def forward(self, t: int, row: Tensor) -> None:
        """Read look t to the beginning of ``row``, product (B, ...), what the LSTM takes."""
        raise NotImplementedError

    def backward(self, t: int, into_row: Tensor) -> None:
        """Set the gradient of the numbers of look t, if any, from that of the row."""
        raise NotImplementedError

    def into_parameters(self) -> dict[str, Tensor]:
        """Return the gradients of the glimpse's own parameters that no row joins, by name."""
        return {}


class WindowReading(Reading):
    """Reading through Gaussian windows.

    Args:
        share: of the images.
        patch: N.
        bounded: whether numbers are squashed.
    """

    def __init__(self, share: Share, patch: int, bounded: bool):
        super().__init__(share, len(attention.PARAMETERS))
        batch, channels, *size = self.shape
        self.side = Side(
            size, channels, patch, share.steps, batch, keep=share.keep, whole=share.whole,
            dtype=share.dtype, device=share.images.device, bounded=bounded, clip=share.clip,
        )  # fmt: skip
        self.at_numbers, self.at_into = (
            addresses(tensor, share.steps) for tensor in (self.numbers, self.into_numbers)
        )
        self.pictures = batch, channels, self.images.data_ptr(), self.bytes, 0

    def patches(self, t: int) -> int:
        """Return the address of the patches (B, C N N) of look t."""
        return self.side.at(t)[-1]

    def forward(self, t: int, row: Tensor) -> None:
        self.native.read_forward(
            self.side.map, *self.pictures, self.at_numbers[t], self.numbers.shape[-1],
            *self.side.at(t), row.data_ptr(), row.stride(0), self.share.rounded,
        )  # fmt: skip

    def backward(self, t: int, into_row: Tensor) -> None:
        count = self.numbers.shape[-1]
        self.native.read_backward(
            self.side.map, *self.pictures, self.at_numbers[t], count, *self.side.at(t),
            into_row.data_ptr(), into_row.stride(0), self.share.rounded, 0, self.at_into[t], count,
        )  # fmt: skip


class GaussianReading(WindowReading):
    """Reading through windows of which all five numbers are chosen, or fixed."""

    def __init__(self, glimpse: Any, share: Share):
        super().__init__(share, glimpse.patch, glimpse.window_map == "bounded")


class RandomReading(WindowReading):
    """Reading through windows at random places, of which the LSTM is told. Only the last three
    numbers are chosen, so only their gradient is clipped.
    """

    def __init__(self, glimpse: Any, share: Share):
        super().__init__(share._replace(clip=None), glimpse.patch, bounded=True)
        self.limit = share.limit
        place = glimpse.draw(as_images(share.images), share.steps).to(share.dtype)
        radius = place.new_tensor(attention.SQUASH_RADIUS[:2])
        self.told = place.transpose(0, 1)
        self.numbers[..., :2] = radius * torch.atanh(self.told / radius)  # what squashing undoes
        self.chosen, self.into_chosen = self.numbers[..., 2:], self.into_numbers[..., 2:]

    def backward(self, t: int, into_row: Tensor) -> None:
        super().backward(t, into_row)
        if self.limit is not None:
            self.into_chosen[t] = attention.clip_rows(self.into_chosen[t], self.limit)


class AffineReading(Reading):
    """Reading through affine maps. The kernel keeps the derivative of every number read by the six
    of its map, so the way back is a sum of products.
    """

    def __init__(self, glimpse: Any, share: Share):
        super().__init__(share, len(IDENTITY))
        batch, channels, *_ = self.shape
        self.sampling = glimpse.patch, glimpse.supersample
        self.middle = self.numbers.new_tensor(IDENTITY)
        bounded = glimpse.window_map == "bounded"
        self.radius = self.numbers.new_tensor(AFFINE_RADIUS) if bounded else None
        self.moved = torch.empty_like(self.numbers)  # by how far each map is from the middle
        self.size = batch, channels * glimpse.patch**2
        kept = share.steps if share.keep else 0
        self.slopes = self.numbers.new_empty(kept, batch, len(IDENTITY), self.size[1])
        self.at_slopes = addresses(self.slopes, kept) if kept else [0] * share.steps

    def forward(self, t: int, row: Tensor) -> None:
        numbers, moved = self.numbers[t], self.moved[t]
        if self.radius is None:
            moved.copy_(numbers)
        else:
            torch.mul(torch.tanh(numbers / self.radius), self.radius, out=moved)
        theta = self.middle + moved
        self.native.affine_forward(
            *self.shape, self.images.data_ptr(), self.bytes, theta.data_ptr(), *self.sampling,
            self.at_slopes[t], row.data_ptr(), row.stride(0), self.share.rounded,
        )  # fmt: skip

    def backward(self, t: int, into_row: Tensor) -> None:
        into, row = self.into_numbers[t], (into_row.data_ptr(), into_row.stride(0))
        self.native.affine_backward(
            *self.size, self.at_slopes[t], *row, self.share.rounded, into.data_ptr()
        )
        if self.radius is not None:
            into.mul_(1 - (self.moved[t] / self.radius).square())
        if self.share.limit is not None:
            into.copy_(attention.clip_rows(into, self.share.limit))


class HardReading(Reading):
    """Hard crops at several scales, and what the glimpse makes of them.

    No gradient flows to a place, so none flows from what is read to an earlier state, and the
    gradients of the glimpse's own layers can wait until the end, when all looks are one product.
    """

    sends_back = False
    LAYERS = ("what", "where", "join")

    def __init__(self, glimpse: Any, share: Share):
        super().__init__(share, glimpse.numbers)
        self.glimpse = glimpse
        batch, channels, *_ = self.shape
        count, width = glimpse.scales * channels * glimpse.patch**2, glimpse.join.out_features
        kept = share.steps if share.keep else 1
        self.patches, self.places, self.into = (
            repeated(torch.empty(kept, batch, size, dtype=dtype), share.steps)
            for size, dtype in ((count, share.matmul_dtype), (2, share.dtype), (width, share.dtype))
        )
        # As they are now, to be differentiated in the end. Places are never rounded.
        dtypes = share.matmul_dtype, share.dtype, share.matmul_dtype
        self.layers = {
            f"{layer}.{part}": share.parameters[f"glimpse.{layer}.{part}"]
            .detach()
            .to(dtype, copy=True)
            .requires_grad_()
            for layer, dtype in zip(self.LAYERS, dtypes, strict=True)
            for part in ("weight", "bias")
        }

    def _encoded(self, patches: Tensor, places: Tensor) -> Tensor:
        """Compute the glimpse's ``encode``."""
        layers = [*self.layers.values()]
        what, where = F.linear(patches, *layers[:2]).relu(), F.linear(places, *layers[2:4]).relu()
        return F.linear(torch.cat([what, where.to(what.dtype)], dim=1), *layers[4:]).relu()

    def forward(self, t: int, row: Tensor) -> None:
        glimpse, patches, (height, width) = self.glimpse, self.patches[t], self.shape[-2:]
        noise = None if self.share.noise is None else self.share.noise[:, t]
        _, place = glimpse.aim(self.numbers[t], noise)
        sides = [glimpse.patch << scale for scale in range(glimpse.scales)]
        first = torch.stack([spatial.first_pixels(place, height, width, side) for side in sides])
        self.native.crops_forward(
            *self.shape, self.images.data_ptr(), self.bytes, first.data_ptr(), glimpse.patch,
            glimpse.scales, patches.data_ptr(), patches.stride(0), self.share.rounded,
        )  # fmt: skip
        self.places[t] = place
        row[:, : self.into.shape[-1]] = self._encoded(patches, place)

    def backward(self, t: int, into_row: Tensor) -> None:
        self.into[t] = into_row[:, : self.into.shape[-1]]

    def into_parameters(self) -> dict[str, Tensor]:
        with torch.enable_grad():
            encoded = self._encoded(self.patches.flatten(0, 1), self.places.flatten(0, 1))
        into = self.into.flatten(0, 1).to(encoded.dtype)
        gradients = torch.autograd.grad(encoded, [*self.layers.values()], into)
        return dict(zip(self.layers, gradients, strict=True))
